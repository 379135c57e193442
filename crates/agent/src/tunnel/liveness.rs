//! When to send a heartbeat, and when to take the server for dead. Pure: the time comes in as an argument.
//!
//! Called by `control`. Both silence (nothing arrives at all) and a heartbeat without an answer count, and neither may
//! last longer than three intervals. Time in which this process did not run (frozen, or its host suspended) proves
//! nothing about the server: then one heartbeat decides, within one interval.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use moorline_wire::limits::MISSED_HEARTBEATS;
use tokio::time::Instant;

/// Intervals outside of this are moved to its ends: a server must make the agent neither spin nor wait for ever.
const SANE: std::ops::RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(60);

/// The share by which each interval is shortened at random, at most, so that the beats of a fleet spread.
const JITTER: f64 = 0.2;

/// So many intervals pass at most between two heartbeats of ours, however often the server sends some.
const OWN_BEAT_EVERY: u32 = 12;

/// The state of one session's heartbeats.
#[derive(Debug)]
pub(super) struct Liveness {
    interval: Duration,
    heard: Instant,
    woken: (Instant, SystemTime),
    next_beat: Instant,
    last_beat: Instant,
    sequence: u64,
    /// Sent and not answered, oldest first. At most one for each interval until the session is dead.
    unanswered: VecDeque<(u64, Instant)>,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send a heartbeat with this number.
    Beat(u64),
    /// Nothing yet.
    Wait,
    /// The server is gone; the text says how that showed.
    Dead(&'static str),
}

impl Liveness {
    /// A session that was welcomed just now. `luck` (0 to 1) spreads the first beats.
    pub(super) fn new(interval: Duration, (now, wall): (Instant, SystemTime), luck: f64) -> Self {
        let interval = interval.clamp(*SANE.start(), *SANE.end());
        Self {
            interval,
            heard: now,
            woken: (now, wall),
            next_beat: now + interval.mul_f64(luck),
            last_beat: now,
            sequence: 0,
            unanswered: VecDeque::new(),
        }
    }

    /// When [`Liveness::wake`] is to be called at the latest.
    pub(super) fn next_wake(&self) -> Instant {
        let patience = self.patience();
        let unanswered = self.unanswered.front().map(|(_, sent)| *sent + patience);
        self.next_beat.min(self.heard + patience).min(unanswered.unwrap_or(self.next_beat))
    }

    /// Bytes arrived.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The server sent a heartbeat of its own, which shows as much as an answer to ours: ours can wait a little, so that
    /// a fleet beats once and not twice. Now and then it is sent all the same, to measure the round trip.
    pub(super) fn beaten(&mut self, (now, wall): (Instant, SystemTime)) {
        // After a sleep it may have lain here since before, and shows nothing.
        if !self.has_slept(now, wall) && now.saturating_duration_since(self.last_beat) < OWN_BEAT_EVERY * self.interval
        {
            self.woken = (now, wall);
            self.next_beat = self.next_beat.max(now + self.interval.mul_f64(1.0 + JITTER));
        }
    }

    /// A heartbeat was answered, and with it all before; gives the round trip. Numbers never sent are ignored.
    pub(super) fn answered(&mut self, sequence: u64, now: Instant) -> Option<Duration> {
        let at = self.unanswered.iter().position(|(sent, _)| *sent == sequence)?;
        self.unanswered.drain(..=at).next_back().map(|(_, sent)| now.saturating_duration_since(sent))
    }

    /// Time has passed. `luck` (0 to 1) shortens the next interval.
    pub(super) fn wake(&mut self, (now, wall): (Instant, SystemTime), luck: f64) -> Verdict {
        let slept = self.has_slept(now, wall);
        self.woken = (now, wall);
        if slept {
            // Everything sent before is forgotten; whatever arrives within one interval proves the server alive.
            self.unanswered.clear();
            self.heard = now.checked_sub(self.patience() - self.interval).unwrap_or(now);
            return self.beat(now, luck);
        }
        if now.saturating_duration_since(self.heard) >= self.patience() {
            return Verdict::Dead("silence");
        }
        if self.unanswered.front().is_some_and(|(_, sent)| now.saturating_duration_since(*sent) >= self.patience()) {
            return Verdict::Dead("heartbeats unanswered");
        }
        if now >= self.next_beat { self.beat(now, luck) } else { Verdict::Wait }
    }

    fn beat(&mut self, now: Instant, luck: f64) -> Verdict {
        self.sequence += 1;
        self.unanswered.push_back((self.sequence, now));
        self.last_beat = now;
        self.next_beat = now + self.interval.mul_f64(1.0 - JITTER * luck);
        Verdict::Beat(self.sequence)
    }

    /// A frozen process wakes far too late by the monotonic clock; a suspended host's monotonic clock stands still while
    /// the wall clock does not. A wall clock that was merely set costs one early heartbeat.
    fn has_slept(&self, now: Instant, wall: SystemTime) -> bool {
        let (before, wall_before) = self.woken;
        let passed = now.saturating_duration_since(before);
        let wall_passed = wall.duration_since(wall_before).unwrap_or_default();
        let bearable = 2 * self.interval;
        passed > bearable || wall_passed > passed + bearable
    }

    fn patience(&self) -> Duration {
        self.interval * MISSED_HEARTBEATS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(5);

    struct Clock(Liveness, Instant, SystemTime);

    impl Clock {
        fn new() -> Self {
            let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
            Self(Liveness::new(BEAT, (now, wall), 1.0), now, wall)
        }

        /// Runs for `time`, waking when asked to; gives what was decided, with the seconds from the start of the run.
        fn run(&mut self, time: Duration, mut each: impl FnMut(&mut Liveness, Instant, u64)) -> Vec<(u64, Verdict)> {
            let (began, end) = (self.1, self.1 + time);
            let mut verdicts = Vec::new();
            while self.0.next_wake() <= end {
                let step = self.0.next_wake() - self.1;
                (self.1, self.2) = (self.1 + step, self.2 + step);
                let verdict = self.0.wake((self.1, self.2), 0.0);
                if let Verdict::Beat(sequence) = verdict {
                    each(&mut self.0, self.1, sequence);
                }
                let dead = matches!(verdict, Verdict::Dead(_));
                verdicts.push(((self.1 - began).as_secs(), verdict));
                if dead {
                    break;
                }
            }
            verdicts
        }
    }

    #[test]
    fn an_answering_server_lives() {
        let verdicts = Clock::new().run(Duration::from_secs(3600), |liveness, now, sequence| {
            liveness.heard(now);
            assert!(liveness.answered(sequence, now).is_some());
        });
        assert_eq!(verdicts.len(), 720);
        assert!(verdicts.iter().all(|(_, verdict)| matches!(verdict, Verdict::Beat(_))));
    }

    #[test]
    fn f37_a_server_that_beats_is_rarely_asked_and_found_dead_as_soon() {
        let (mut clock, mut beats) = (Clock::new(), 0);
        for _ in 0..720 {
            let until = clock.1 + Duration::from_secs(5);
            let verdicts = clock.run(until - clock.1, |liveness, now, sequence| {
                liveness.heard(now);
                liveness.answered(sequence, now);
            });
            beats += verdicts.len();
            (clock.1, clock.2) = (until, clock.2 + (until - clock.1));
            clock.0.heard(until);
            clock.0.beaten((until, clock.2));
        }
        assert!((50..=61).contains(&beats), "{beats} in an hour");
        let verdicts = clock.run(Duration::from_secs(60), |_, _, _| {});
        let (died, verdict) = verdicts.last().unwrap();
        assert!(*died <= 15 && matches!(verdict, Verdict::Dead(_)), "{verdicts:?}");
    }

    #[test]
    fn f03_silence_is_found_within_three_beats() {
        let verdicts = Clock::new().run(Duration::from_secs(60), |_, _, _| {});
        assert_eq!(verdicts.last(), Some(&(15, Verdict::Dead("silence"))));
    }

    #[test]
    fn a_talkative_server_that_answers_no_heartbeat_is_dead() {
        let verdicts = Clock::new().run(Duration::from_secs(60), |liveness, now, _| liveness.heard(now));
        assert_eq!(verdicts.last(), Some(&(20, Verdict::Dead("heartbeats unanswered"))), "sent at 5, patience 15");
    }

    #[test]
    fn answers_are_matched() {
        let mut clock = Clock::new();
        let verdicts = clock.run(Duration::from_secs(12), |_, _, _| {});
        assert_eq!(verdicts, [(5, Verdict::Beat(1)), (10, Verdict::Beat(2))]);
        let now = clock.1 + Duration::from_secs(1);
        assert_eq!(clock.0.answered(7, now), None);
        assert_eq!(clock.0.answered(2, now), Some(Duration::from_secs(1)));
        assert_eq!(clock.0.answered(1, now), None, "answered together with the later one");
    }

    #[test]
    fn f40_after_a_freeze_one_beat_decides() {
        for suspended in [false, true] {
            let mut clock = Clock::new();
            clock.run(Duration::from_secs(7), |liveness, now, sequence| {
                liveness.heard(now);
                liveness.answered(sequence, now);
            });
            clock.2 += Duration::from_secs(600);
            clock.1 += Duration::from_secs(if suspended { 1 } else { 600 });
            let verdict = clock.0.wake((clock.1, clock.2), 0.0);
            assert!(matches!(verdict, Verdict::Beat(_)), "{verdict:?}");
            let verdicts = clock.run(Duration::from_secs(60), |_, _, _| {});
            assert_eq!(verdicts.last().unwrap().0, 5, "{verdicts:?}");
            assert!(matches!(verdicts.last().unwrap().1, Verdict::Dead(_)), "{verdicts:?}");
        }
    }

    #[test]
    fn f40_a_clock_set_back_changes_nothing() {
        let mut clock = Clock::new();
        clock.2 -= Duration::from_secs(3600);
        let verdicts = clock.run(Duration::from_secs(6), |_, _, _| {});
        assert_eq!(verdicts, [(5, Verdict::Beat(1))]);
    }

    #[test]
    fn intervals_are_kept_sane() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        assert_eq!(Liveness::new(Duration::ZERO, (now, wall), 0.0).interval, *SANE.start());
        assert_eq!(Liveness::new(Duration::MAX, (now, wall), 0.0).interval, *SANE.end());
    }

    #[test]
    fn f37_the_beats_of_a_fleet_that_was_welcomed_at_once_are_spread() {
        const FLEET: u32 = 1000;
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut by_tenth = [0; 10];
        for number in 0..FLEET {
            let luck = f64::from(number) / f64::from(FLEET);
            let mut liveness = Liveness::new(BEAT, (now, wall), luck);
            let mut at = now;
            while at < now + BEAT * 10 {
                let step = liveness.next_wake() - at;
                at += step;
                liveness.heard(at);
                if let Verdict::Beat(sequence) = liveness.wake((at, wall + (at - now)), (luck * 7.0).fract()) {
                    liveness.answered(sequence, at);
                }
            }
            // The first beat after ten intervals: which tenth of an interval it falls into.
            let phase = ((at - now).as_secs_f64() / BEAT.as_secs_f64()).fract();
            by_tenth[((phase * 10.0) as usize).min(9)] += 1;
        }
        assert!(by_tenth.iter().all(|count| *count < FLEET / 4), "{by_tenth:?}");
    }
}
