//! When to send a heartbeat, and when silence means death. Pure: the caller brings the time.
//!
//! Used by `control`. A beat leaves every interval; the session is dead when for three intervals no answer came *and*
//! not a byte arrived for one (a link that is busy with a large transfer may delay answers, but then bytes arrive). An
//! agent that sends bytes and answers nothing at all does not work either: four times that long, and it is dead, too.
//! Time in which the server itself did not run proves nothing about an agent, and is not counted.

use std::{collections::VecDeque, mem, time::Duration};

use moorline_wire::limits::MISSED_HEARTBEATS;
use tokio::time::Instant;

/// How much longer an agent may answer nothing as long as its bytes arrive.
const BUSY_FACTOR: u32 = 4;

/// Beats whose sending time is remembered, for the round trip: more are never unanswered on a live session.
const REMEMBERED: usize = 8;

/// The share by which each interval is shortened at random, at most, so that the beats of a fleet spread.
const JITTER: f64 = 0.2;

/// The heart of one session.
#[derive(Debug)]
pub(super) struct Heart {
    interval: Duration,
    next_beat: Instant,
    last_answer: Instant,
    /// When it wanted to be asked what is due.
    wanted: Instant,
    /// A time in which the server did not run was forgiven since the last answer.
    forgiven: bool,
    sequence: u64,
    sent: VecDeque<(u64, Instant)>,
    probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    sequence: u64,
    deadline: Instant,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send a heartbeat with this number. `missed` tells whether the one before is still unanswered.
    Beat { sequence: u64, missed: bool },
    /// Nothing came for too long.
    Dead,
    /// The probe was not answered in time.
    ProbeFailed,
    /// Nothing before this moment.
    Nothing(Instant),
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) round_trip: Duration,
    /// The session has proven itself.
    pub(super) probe_passed: bool,
}

impl Heart {
    /// A session that was heard of just now. `luck` (0 to 1) spreads the first beats.
    pub(super) fn new(interval: Duration, now: Instant, luck: f64) -> Self {
        Self {
            interval,
            next_beat: now + interval.mul_f64(luck),
            last_answer: now,
            wanted: now,
            forgiven: false,
            sequence: 0,
            sent: VecDeque::new(),
            probe: None,
        }
    }

    /// What is due now. `silence` is how long ago the last byte arrived. To be asked again at the moment that it names, at
    /// the latest; after anything else, at once.
    pub(super) fn due(&mut self, now: Instant, silence: Duration, luck: f64) -> Due {
        let late = now.saturating_duration_since(mem::replace(&mut self.wanted, now));
        // Once, until the agent answers: a server that is always late finds a dead one as well.
        let slept = late >= self.interval / 2 && !self.forgiven;
        if slept {
            self.forgive(late, now);
        }
        let due = match self.decide(now, silence, luck) {
            // What came meanwhile is still unread.
            Due::Dead | Due::ProbeFailed if slept => Due::Nothing(now + self.interval / 2),
            due @ (Due::Beat { .. } | Due::Dead | Due::ProbeFailed | Due::Nothing(_)) => due,
        };
        if let Due::Nothing(next) = due {
            self.wanted = next;
        }
        due
    }

    fn decide(&mut self, now: Instant, silence: Duration, luck: f64) -> Due {
        if self.probe.is_some_and(|probe| now >= probe.deadline) {
            return Due::ProbeFailed;
        }
        let unanswered = now.saturating_duration_since(self.last_answer);
        let patience = self.patience();
        if unanswered >= patience && (silence >= self.interval || unanswered >= patience * BUSY_FACTOR) {
            return Due::Dead;
        }
        if now >= self.next_beat {
            let missed = self.sent.back().is_some_and(|(sequence, _)| *sequence == self.sequence);
            return Due::Beat { sequence: self.beat(now, luck), missed };
        }
        let death = self.last_answer + patience;
        // Past the first deadline only bytes keep it alive: look again soon, with each beat at the latest.
        let next = if death > now { self.next_beat.min(death) } else { self.next_beat.min(now + self.interval / 4) };
        Due::Nothing(self.probe.map_or(next, |probe| next.min(probe.deadline)))
    }

    /// A newer session has arrived: send a heartbeat with the returned number at once; it must be answered in time.
    pub(super) fn probe(&mut self, now: Instant, timeout: Duration, luck: f64) -> u64 {
        let sequence = self.beat(now, luck);
        // A probe that runs already keeps its deadline: arrivals in a row must not prolong it.
        self.probe.get_or_insert(Probe { sequence, deadline: now + timeout });
        sequence
    }

    /// The agent answered the beat of this number. None for a number that was not sent, or long ago.
    pub(super) fn answered(&mut self, sequence: u64, now: Instant) -> Option<Answer> {
        let index = self.sent.iter().position(|(sent, _)| *sent == sequence)?;
        let (_, at) = self.sent.drain(..=index).next_back()?;
        self.last_answer = now;
        self.forgiven = false;
        let probe_passed = self.probe.take_if(|probe| sequence >= probe.sequence).is_some();
        Some(Answer { round_trip: now.saturating_duration_since(at), probe_passed })
    }

    /// The process did not run for so long: stopped, its machine paused, or starved.
    fn forgive(&mut self, late: Duration, now: Instant) {
        self.forgiven = true;
        self.last_answer = (self.last_answer + late).min(now);
        if let Some(probe) = &mut self.probe {
            probe.deadline += late;
        }
    }

    fn patience(&self) -> Duration {
        self.interval * MISSED_HEARTBEATS
    }

    fn beat(&mut self, now: Instant, luck: f64) -> u64 {
        self.sequence += 1;
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.sequence, now));
        self.next_beat = now + self.interval.mul_f64(1.0 - JITTER * luck);
        self.sequence
    }
}

/// From 0 to 1, so that the beats of a fleet do not fall together.
pub(super) fn luck() -> f64 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Asks what is due, each time so much later than wanted, until it is dead; how long that takes. `silence` says of
    /// the time that has passed how long nothing has come.
    fn dies(heart: &mut Heart, from: Instant, late: Duration, silence: impl Fn(Duration) -> Duration) -> Duration {
        let mut now = from;
        loop {
            match heart.due(now, silence(now - from), 0.0) {
                Due::Beat { .. } => {}
                Due::Dead => return now - from,
                Due::Nothing(next) => {
                    assert!(next > now);
                    now = next + late;
                }
                Due::ProbeFailed => panic!("nobody probed"),
            }
        }
    }

    #[test]
    fn a_silent_agent_is_dead_after_three_intervals() {
        let start = Instant::now();
        let mut heart = Heart::new(INTERVAL, start, 1.0);
        let mut beats = 0;
        let mut now = start;
        let died = loop {
            match heart.due(now, now - start, 0.0) {
                Due::Beat { sequence, missed } => {
                    beats += 1;
                    assert_eq!((sequence, missed), (beats, beats > 1));
                }
                Due::Dead => break now - start,
                Due::Nothing(next) => now = next,
                Due::ProbeFailed => panic!("nobody probed"),
            }
        };
        assert_eq!(died, secs(15));
        assert_eq!(beats, 2);
    }

    #[test]
    fn answers_keep_it_alive_and_tell_the_round_trip() {
        let start = Instant::now();
        let mut heart = Heart::new(INTERVAL, start, 0.0);
        let mut now = start;
        for beat in 1..100 {
            assert_eq!(heart.due(now, Duration::ZERO, 0.5), Due::Beat { sequence: beat, missed: false });
            let answer = heart.answered(beat, now + secs(1)).unwrap();
            assert_eq!(answer, Answer { round_trip: secs(1), probe_passed: false });
            let Due::Nothing(next) = heart.due(now + secs(1), Duration::ZERO, 0.5) else { panic!("not yet") };
            assert_eq!(next - now, INTERVAL.mul_f64(0.9));
            now = next;
        }
        assert_eq!(heart.answered(7, now), None, "answered before");
        assert_eq!(heart.answered(1_000_000, now), None, "never sent");
    }

    #[test]
    fn bytes_without_answers_help_for_a_while_only() {
        let start = Instant::now();
        let mut heart = Heart::new(INTERVAL, start, 0.0);
        assert_eq!(dies(&mut heart, start, Duration::ZERO, |_age| secs(1)), secs(60));
    }

    #[test]
    fn f40_a_server_that_was_frozen_hears_what_came_meanwhile_before_it_judges() {
        let start = Instant::now();
        let mut heart = Heart::new(INTERVAL, start, 0.0);
        assert_eq!(heart.due(start, Duration::ZERO, 0.0), Due::Beat { sequence: 1, missed: false });
        assert_eq!(heart.probe(start, secs(2), 0.0), 2);
        assert_eq!(heart.due(start, Duration::ZERO, 0.0), Due::Nothing(start + secs(2)));
        let woken = start + secs(602);
        let Due::Nothing(next) = heart.due(woken, secs(602), 0.0) else { panic!("it may have answered") };
        assert!(heart.answered(2, woken).unwrap().probe_passed);
        assert!(matches!(heart.due(next, Duration::ZERO, 0.0), Due::Beat { .. }));

        // An agent that died meanwhile is found as late as any.
        let mut heart = Heart::new(INTERVAL, start, 1.0);
        let Due::Nothing(_) = heart.due(start, Duration::ZERO, 0.0) else { panic!("not yet") };
        let died = dies(&mut heart, woken, Duration::ZERO, |age| age + secs(602));
        assert!(died >= INTERVAL && died <= INTERVAL * MISSED_HEARTBEATS, "{died:?}");
    }

    #[test]
    fn a_server_that_is_always_late_finds_a_dead_agent_as_well() {
        let start = Instant::now();
        let mut heart = Heart::new(INTERVAL, start, 0.0);
        let died = dies(&mut heart, start, INTERVAL, |age| age);
        assert!(died <= INTERVAL * (MISSED_HEARTBEATS + 3), "{died:?}");
    }

    #[test]
    fn a_probe_wants_its_own_answer_in_time() {
        let start = Instant::now();
        let mut heart = Heart::new(INTERVAL, start, 0.0);
        assert_eq!(heart.due(start, Duration::ZERO, 0.0), Due::Beat { sequence: 1, missed: false });
        assert_eq!(heart.probe(start, secs(2), 0.0), 2);
        assert!(!heart.answered(1, start + secs(1)).unwrap().probe_passed, "an answer that was under way before");
        assert_eq!(heart.probe(start + secs(1), secs(2), 0.0), 3, "another arrival does not prolong it");
        assert_eq!(heart.due(start + secs(2), Duration::ZERO, 0.0), Due::ProbeFailed);
        assert!(heart.answered(3, start + secs(2)).unwrap().probe_passed);
        assert!(matches!(heart.due(start + secs(2), Duration::ZERO, 0.0), Due::Nothing(_)));
    }

    #[test]
    fn f37_the_beats_of_a_fleet_that_arrived_at_once_are_spread() {
        const FLEET: u32 = 1000;
        let start = Instant::now();
        let mut by_tenth = [0; 10];
        for number in 0..FLEET {
            let luck = f64::from(number) / f64::from(FLEET);
            let mut heart = Heart::new(INTERVAL, start, luck);
            let mut now = start;
            loop {
                match heart.due(now, Duration::ZERO, (luck * 7.0).fract()) {
                    Due::Beat { .. } if now >= start + INTERVAL * 10 => break,
                    Due::Beat { sequence, .. } => drop(heart.answered(sequence, now)),
                    Due::Nothing(next) => now = next,
                    other @ (Due::Dead | Due::ProbeFailed) => panic!("{other:?}"),
                }
            }
            let phase = ((now - start).as_secs_f64() / INTERVAL.as_secs_f64()).fract();
            by_tenth[((phase * 10.0) as usize).min(9)] += 1;
        }
        assert!(by_tenth.iter().all(|count| *count < FLEET / 4), "{by_tenth:?}");
    }
}
