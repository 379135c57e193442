//! What the rest of the server wants of a session's control task. Costs a few words of memory for each session.
//!
//! Given by the registry, the control API and the composition root; taken by `control`.

use std::{
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use moorline_wire::CloseReason;

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Ask the agent for a sign of life, and cut the session if none comes soon: a newer one has arrived.
    Probe,
    /// Tell the agent to finish what runs and to dial again after so long.
    GoAway {
        /// Why.
        reason: CloseReason,
        /// When to dial again.
        after: Duration,
    },
    /// Tell the agent to get a new certificate within so long.
    Renew(Duration),
    /// Tell the agent which authorities to believe, as they are when the order is carried out.
    TakeRoots,
    /// Tell the agent why, and cut the session and all that runs on it.
    Cut(CloseReason),
}

/// The orders that wait. At most one of each kind: a later one replaces an earlier one.
#[derive(Default)]
pub(crate) struct Orders {
    waiting: Mutex<Waiting>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    probe: bool,
    take_roots: bool,
    renew: Option<Duration>,
    go_away: Option<(CloseReason, Duration)>,
    cut: Option<CloseReason>,
}

impl Orders {
    /// Gives an order. Never waits.
    pub(crate) fn give(&self, order: Order) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match order {
                Order::Probe => waiting.probe = true,
                Order::TakeRoots => waiting.take_roots = true,
                Order::Renew(within) => waiting.renew = Some(within),
                Order::GoAway { reason, after } => waiting.go_away = Some((reason, after)),
                // The first reason stands.
                Order::Cut(reason) => drop(waiting.cut.get_or_insert(reason)),
            }
        }
        self.waker.wake();
    }

    /// The most urgent order that waits.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Order> {
        self.waker.register(cx.waker());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = waiting.cut.take() {
            return Poll::Ready(Order::Cut(reason));
        }
        if let Some((reason, after)) = waiting.go_away.take() {
            return Poll::Ready(Order::GoAway { reason, after });
        }
        if std::mem::take(&mut waiting.probe) {
            return Poll::Ready(Order::Probe);
        }
        // Before the renewal: what it is to believe comes first.
        if std::mem::take(&mut waiting.take_roots) {
            return Poll::Ready(Order::TakeRoots);
        }
        if let Some(within) = waiting.renew.take() {
            return Poll::Ready(Order::Renew(within));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use super::*;

    fn next(orders: &Orders) -> Option<Order> {
        match orders.poll_next(&Context::from_waker(Waker::noop())) {
            Poll::Ready(order) => Some(order),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_most_urgent_comes_first_and_each_once() {
        let orders = Orders::default();
        orders.give(Order::Probe);
        orders.give(Order::Probe);
        orders.give(Order::GoAway { reason: CloseReason::Draining, after: Duration::from_secs(1) });
        orders.give(Order::Cut(CloseReason::ClusterDeleted));
        orders.give(Order::Cut(CloseReason::Shutdown));
        assert_eq!(next(&orders), Some(Order::Cut(CloseReason::ClusterDeleted)));
        assert!(matches!(next(&orders), Some(Order::GoAway { .. })));
        assert_eq!(next(&orders), Some(Order::Probe));
        orders.give(Order::Renew(Duration::from_secs(1)));
        orders.give(Order::TakeRoots);
        assert_eq!(next(&orders), Some(Order::TakeRoots));
        assert_eq!(next(&orders), Some(Order::Renew(Duration::from_secs(1))));
        assert_eq!(next(&orders), None);
    }

    #[tokio::test]
    async fn an_order_wakes_the_task_that_waits() {
        let orders = std::sync::Arc::new(Orders::default());
        let waiting = poll_fn(|cx| orders.poll_next(cx));
        let giving = async { orders.give(Order::Probe) };
        let (order, ()) = tokio::join!(waiting, giving);
        assert_eq!(order, Order::Probe);
    }
}
