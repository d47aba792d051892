//! What is on its way: when each part was sent, what of it the peer says that it has, what is taken for lost (RFC 2018, RFC 6675, RFC 8985).
//!
//! Owns the scoreboard of one connection: runs of bytes with one fate, from the first that is not acknowledged to the last that was sent. Has no
//! timer and no window. What a peer says makes at most `MOST` runs: beyond that it is forgotten what the peer has said, as RFC 2018 allows, so that
//! neither memory nor time grow with what it says. Called by `connection`.

use std::collections::VecDeque;

use crate::segment::after;

/// So many runs; further parts join the last.
const MOST: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    /// The peer has it.
    Had,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    end: u32,
    at: u64,
    fate: Fate,
    /// It was sent more than once.
    again: bool,
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct News {
    /// Bytes that the peer is known to have only now.
    pub(crate) delivered: u32,
    /// How long the oldest of them took that was sent once. Not if one of them was sent again.
    pub(crate) took: Option<u64>,
    again: bool,
}

#[derive(Debug)]
pub(crate) struct Board {
    runs: VecDeque<Run>,
    una: u32,
    /// Bytes of either fate.
    had: u32,
    lost: u32,
    /// The highest end that the peer said it has.
    top: u32,
    /// RFC 8985: of what arrived the last that was sent (when, and its end), and how long it took.
    newest: (u64, u32),
    took: u64,
    /// The path changes the order; by how many quarters of a round trip that is allowed for.
    reorders: bool,
    quarters: u8,
}

impl Board {
    pub(crate) fn new(una: u32) -> Self {
        Board {
            runs: VecDeque::new(),
            una,
            had: 0,
            lost: 0,
            top: una,
            newest: (0, una),
            took: 0,
            reorders: false,
            quarters: 1,
        }
    }

    /// The end of what was sent.
    pub(crate) fn end(&self) -> u32 {
        self.runs.back().map_or(self.una, |run| run.end)
    }

    /// Bytes that are believed to be in the network (RFC 6675's pipe).
    pub(crate) fn pipe(&self) -> u32 {
        self.end().wrapping_sub(self.una).saturating_sub(self.had).saturating_sub(self.lost)
    }

    /// Bytes behind a hole that the peer has.
    pub(crate) fn had(&self) -> u32 {
        self.had
    }

    pub(crate) fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// The peer has something behind a hole, or something is being sent again.
    pub(crate) fn is_uneven(&self) -> bool {
        self.had > 0 || self.lost > 0
    }

    /// New bytes left.
    pub(crate) fn sent(&mut self, end: u32, now: u64) {
        let full = self.runs.len() >= MOST;
        match self.runs.back_mut() {
            Some(run) if run.fate == Fate::Sent && !run.again && (run.at == now || full) => {
                (run.end, run.at) = (end, now);
            }
            _ => self.runs.push_back(Run { end, at: now, fate: Fate::Sent, again: false }),
        }
    }

    fn note(&mut self, run: &Run, bytes: u32, now: u64, least: u64, news: &mut News) {
        match run.fate {
            Fate::Had => {
                self.had = self.had.saturating_sub(bytes);
                return;
            }
            Fate::Lost => self.lost = self.lost.saturating_sub(bytes),
            Fate::Sent => {}
        }
        news.delivered = news.delivered.saturating_add(bytes);
        let took = now.saturating_sub(run.at);
        if run.again {
            news.again = true;
            // Too early for an answer to what was sent last.
            if took < least {
                return;
            }
        } else {
            // Behind it something had come before.
            self.reorders |= after(self.top, run.end);
            news.took = Some(news.took.unwrap_or(0).max(took));
        }
        if run.at > self.newest.0 || run.at == self.newest.0 && after(run.end, self.newest.1) {
            (self.newest, self.took) = ((run.at, run.end), took);
        }
    }

    /// All before `ack` is there. `least`: the shortest round trip.
    pub(crate) fn acknowledged(&mut self, ack: u32, now: u64, least: u64, news: &mut News) {
        while after(ack, self.una)
            && let Some(run) = self.runs.front().copied()
        {
            let end = if after(run.end, ack) { ack } else { run.end };
            let bytes = end.wrapping_sub(self.una);
            self.note(&Run { end, ..run }, bytes, now, least, news);
            self.una = end;
            if end == run.end {
                self.runs.pop_front();
            }
        }
        if news.again {
            news.took = None;
        }
        if after(self.una, self.top) {
            self.top = self.una;
        }
    }

    /// Cuts the run in which `at` lies; answers the first that begins there or behind.
    fn cut(&mut self, at: u32) -> usize {
        let index = self.runs.partition_point(|run| !after(run.end, at));
        let begin = index.checked_sub(1).and_then(|i| self.runs.get(i)).map_or(self.una, |run| run.end);
        if begin == at || index >= self.runs.len() {
            return index;
        }
        if let Some(run) = self.runs.get(index).copied() {
            self.runs.insert(index, Run { end: at, ..run });
        }
        index.saturating_add(1)
    }

    /// The peer says that it has what lies between the two.
    pub(crate) fn has(&mut self, left: u32, right: u32, now: u64, least: u64, news: &mut News) {
        let left = if after(self.una, left) { self.una } else { left };
        if !after(right, left) || after(right, self.end()) {
            return;
        }
        if self.runs.len() >= MOST.saturating_sub(2) {
            self.forget();
        }
        let first = self.cut(left);
        let behind = self.cut(right);
        let mut start = left;
        let mut fresh = false;
        for index in first..behind {
            let Some(run) = self.runs.get(index).copied() else { break };
            if run.fate != Fate::Had {
                let bytes = run.end.wrapping_sub(start);
                self.note(&run, bytes, now, least, news);
                self.had = self.had.saturating_add(bytes);
                fresh = true;
            }
            start = run.end;
        }
        if after(right, self.top) {
            self.top = right;
        }
        if !fresh && behind.saturating_sub(first) == 1 {
            return;
        }
        // One run of it, with those beside it.
        let is_had = |run: Option<&Run>| run.is_some_and(|run| run.fate == Fate::Had);
        let before = first.saturating_sub(usize::from(first > 0 && is_had(self.runs.get(first.saturating_sub(1)))));
        let last = behind.saturating_add(usize::from(is_had(self.runs.get(behind))));
        let end = self.runs.get(last.saturating_sub(1)).map_or(right, |run| run.end);
        self.runs.drain(before..last);
        self.runs.insert(before, Run { end, at: 0, fate: Fate::Had, again: false });
    }

    /// The peer told of something that came twice (RFC 8985, 6.2: more time for what is late).
    pub(crate) fn came_twice(&mut self) {
        self.reorders = true;
        self.quarters = self.quarters.saturating_add(1).min(16);
    }

    /// Takes for lost what was sent well before something that arrived. `settled`: enough behind it came, or something is lost already. Answers
    /// when to look again.
    pub(crate) fn look_for_lost(&mut self, now: u64, least: u64, smoothed: u64, settled: bool) -> Option<u64> {
        if !self.is_uneven() {
            return None;
        }
        let allowed = match (self.reorders, settled) {
            (false, true) => 0,
            _ => (least / 4).saturating_mul(u64::from(self.quarters)).min(smoothed),
        };
        let (newest, patience) = (self.newest, self.took.saturating_add(allowed));
        let mut again = None;
        let mut start = self.una;
        let mut lost = 0u32;
        for run in &mut self.runs {
            let earlier = run.at < newest.0 || run.at == newest.0 && after(newest.1, run.end);
            if run.fate == Fate::Sent && earlier {
                let at = run.at.saturating_add(patience);
                if at <= now {
                    run.fate = Fate::Lost;
                    lost = lost.saturating_add(run.end.wrapping_sub(start));
                } else {
                    again = Some(at.max(again.unwrap_or(0)));
                }
            }
            start = run.end;
        }
        self.lost = self.lost.saturating_add(lost);
        again
    }

    /// The first bytes are lost, as repeated acknowledgements or a partial one say of a peer that does not know SACK.
    pub(crate) fn first_lost(&mut self, bytes: u32) {
        let end = self.una.wrapping_add(bytes);
        let end = if after(end, self.end()) { self.end() } else { end };
        let behind = self.cut(end);
        let mut start = self.una;
        for run in self.runs.iter_mut().take(behind) {
            if run.fate == Fate::Sent {
                run.fate = Fate::Lost;
                self.lost = self.lost.saturating_add(run.end.wrapping_sub(start));
            }
            start = run.end;
        }
    }

    /// All that the peer does not have is lost.
    pub(crate) fn all_lost(&mut self) {
        let mut start = self.una;
        self.lost = 0;
        for run in &mut self.runs {
            if run.fate != Fate::Had {
                run.fate = Fate::Lost;
                self.lost = self.lost.saturating_add(run.end.wrapping_sub(start));
            }
            start = run.end;
        }
    }

    /// Forgets what the peer said: it may have thrown it away (RFC 2018, 8), or says too much.
    pub(crate) fn forget(&mut self) {
        let end = self.end();
        let at = self.runs.iter().map(|run| run.at).max().unwrap_or(0);
        self.runs.clear();
        (self.had, self.lost, self.top) = (0, 0, self.una);
        if after(end, self.una) {
            self.lost = end.wrapping_sub(self.una);
            self.runs.push_back(Run { end, at, fate: Fate::Lost, again: true });
        }
    }

    /// What was taken for lost is on its way.
    pub(crate) fn found(&mut self) {
        self.lost = 0;
        for run in &mut self.runs {
            if run.fate == Fate::Lost {
                run.fate = Fate::Sent;
            }
        }
    }

    /// Whether what is acknowledged next is said to be there: the peer has thrown it away, or lied.
    pub(crate) fn is_reneged(&self) -> bool {
        self.runs.front().is_some_and(|run| run.fate == Fate::Had)
    }

    /// What is lost, from the first on: where it begins, and how long it is.
    pub(crate) fn next_lost(&self) -> Option<(u32, u32)> {
        if self.lost == 0 {
            return None;
        }
        let mut start = self.una;
        for run in &self.runs {
            if run.fate == Fate::Lost {
                return Some((start, run.end.wrapping_sub(start)));
            }
            start = run.end;
        }
        None
    }

    /// What lies between the two was sent again.
    pub(crate) fn resent(&mut self, left: u32, right: u32, now: u64) {
        if !after(right, left) || after(self.una, left) || after(right, self.end()) {
            return;
        }
        if self.runs.len() >= MOST.saturating_sub(2) {
            self.forget();
        }
        let first = self.cut(left);
        let behind = self.cut(right);
        let mut start = left;
        for index in first..behind {
            let Some(run) = self.runs.get_mut(index) else { break };
            let bytes = run.end.wrapping_sub(start);
            start = run.end;
            match run.fate {
                Fate::Had => continue,
                Fate::Lost => self.lost = self.lost.saturating_sub(bytes),
                Fate::Sent => {}
            }
            (run.fate, run.at, run.again) = (Fate::Sent, now, true);
        }
        // What leaves piece by piece at one time is one run.
        if let (Some(before), Some(run)) =
            (first.checked_sub(1).and_then(|i| self.runs.get(i)).copied(), self.runs.get(first))
            && behind.saturating_sub(first) == 1
            && (before.fate, before.at, before.again) == (run.fate, run.at, run.again)
        {
            self.runs.remove(first.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(base: u32, count: u32) -> Board {
        let mut board = Board::new(base);
        for n in 1..=count {
            board.sent(base.wrapping_add(n * 1000), u64::from(n));
        }
        board
    }

    #[test]
    fn several_holes_are_found_at_once() {
        let base = u32::MAX - 3500;
        let at = |n: u32| base.wrapping_add(n * 1000);
        let mut board = sent(base, 10);
        let mut news = News::default();
        for (left, right) in [(1, 2), (3, 5), (6, 10), (3, 5)] {
            board.has(at(left), at(right), 1000, 990, &mut news);
        }
        assert_eq!((news.delivered, board.had(), board.pipe()), (7000, 7000, 3000));
        assert_eq!(board.look_for_lost(1000, 900, 900, true), None);
        assert_eq!((board.lost, board.pipe()), (3000, 0));
        for n in [0, 2, 5] {
            assert_eq!(board.next_lost(), Some((at(n), 1000)));
            board.resent(at(n), at(n + 1), 2000);
        }
        assert_eq!((board.next_lost(), board.pipe()), (None, 3000));
        // The second of them is lost once more: what was sent after it has come.
        let mut news = News::default();
        board.resent(at(5), at(6), 2001);
        board.acknowledged(at(2), 3000, 900, &mut news);
        board.has(at(5), at(10), 3000, 900, &mut news);
        assert_eq!((news.delivered, news.took), (2000, None));
        assert_eq!(board.look_for_lost(3000, 900, 900, true), None);
        assert_eq!(board.next_lost(), Some((at(2), 1000)));
        board.acknowledged(at(10), 3001, 900, &mut news);
        assert_eq!((board.had, board.lost, board.pipe(), board.runs.len()), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_only_late_is_waited_for() {
        let mut board = sent(0, 4);
        let mut news = News::default();
        board.has(1000, 2000, 1000, 800, &mut news);
        // The first left at 1, the second at 2 took 998; a quarter of the shortest round trip is allowed.
        assert_eq!(board.look_for_lost(1000, 800, 900, false), Some(1 + 998 + 200));
        assert!(!board.has_lost());
        board.acknowledged(2000, 1010, 800, &mut news);
        assert!(board.reorders, "the second came before the first");
        board.has(3000, 4000, 1020, 800, &mut news);
        assert_eq!(board.look_for_lost(1020, 800, 900, true), Some(3 + 1016 + 200));
        board.came_twice();
        assert_eq!(board.look_for_lost(1020, 800, 900, true), Some(3 + 1016 + 400));
    }

    #[test]
    fn what_a_peer_says_does_not_grow() {
        let mut board = Board::new(0);
        board.sent(1 << 21, 5);
        let mut news = News::default();
        for n in 0..1u32 << 20 {
            board.has(n * 2 + 1, n * 2 + 2, 10, 1, &mut news);
            assert!(board.runs.len() <= MOST);
        }
        assert_eq!(board.had.wrapping_add(board.lost).wrapping_add(board.pipe()), 1 << 21);
        board.has(5, 4, 1, 1, &mut news);
        board.has(0, u32::MAX, 1, 1, &mut news);
        board.has(1 << 21, (1 << 21) + 1, 1, 1, &mut news);
        assert_eq!(board.had.wrapping_add(board.lost).wrapping_add(board.pipe()), 1 << 21);
        board.acknowledged(u32::MAX / 2, 1, 1, &mut news);
        assert_eq!((board.had, board.lost, board.pipe()), (0, 0, 0));
    }
}
