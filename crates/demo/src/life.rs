//! What happens in the demo as time goes by: a pod that comes, runs, completes and goes, over and over.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    kind::Kind,
    objects::{self, PodPlan, Stage},
    world::World,
};

/// Events kept; the oldest goes when one more comes.
const EVENTS_KEPT: usize = 32;

const COMES_AND_GOES: &str = "comes-and-goes";

/// Fills the world with what is there from the start.
pub(crate) fn begin(world: &World, now: OffsetDateTime) {
    for name in ["default", "demo", "kube-system"] {
        world.put(Kind::Namespace, objects::namespace(name, now));
    }
    world.put(Kind::Node, objects::node(now));
    world.put(Kind::ConfigMap, objects::about(now));
    for (namespace, name) in [("default", "ticker"), ("demo", "echo")] {
        let plan = PodPlan { namespace, name, app: name, created: now, stage: Stage::Running, since: now };
        world.put(Kind::Pod, objects::pod(&plan));
    }
}

/// Lets time pass, one stage of the pod's life for each `step`. Never ends; drop it to stop the world.
pub(crate) async fn go_on(world: Arc<World>, step: Duration) {
    let mut news = News { world: Arc::clone(&world), kept: VecDeque::new(), serial: 0 };
    let mut clock = tokio::time::interval(step);
    clock.tick().await;
    for round in 1_u64.. {
        let name = format!("{COMES_AND_GOES}-{round}");
        let created = OffsetDateTime::now_utc();
        let mut plan = PodPlan {
            namespace: "default",
            name: &name,
            app: COMES_AND_GOES,
            created,
            stage: Stage::Creating,
            since: created,
        };
        let pod = world.put(Kind::Pod, objects::pod(&plan));
        news.tell(&pod, "Scheduled", "Assigned to the only node there is");
        for (stage, reason, message) in [
            (Stage::Running, "Started", "Pretending to run a container"),
            (Stage::Completed, "Completed", "Done pretending"),
        ] {
            clock.tick().await;
            (plan.stage, plan.since) = (stage, OffsetDateTime::now_utc());
            let pod = world.put(Kind::Pod, objects::pod(&plan));
            news.tell(&pod, reason, message);
        }
        clock.tick().await;
        world.remove(Kind::Pod, plan.namespace, plan.name);
        clock.tick().await;
    }
}

struct News {
    world: Arc<World>,
    kept: VecDeque<String>,
    serial: u64,
}

impl News {
    fn tell(&mut self, pod: &Value, reason: &str, message: &str) {
        self.serial += 1;
        let event = objects::event(pod, self.serial, reason, message, OffsetDateTime::now_utc());
        if self.kept.len() == EVENTS_KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.world.remove(Kind::Event, "default", &oldest);
        }
        self.kept.push_back(event["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        self.world.put(Kind::Event, event);
    }
}
