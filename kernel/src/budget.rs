//! A scheduling context's budget: a sporadic server (Sprunt, Sha, Lehoczky 1989; as corrected by Stanovich et al. 2010).
//!
//! A thread may run for `budget` in every window of `period`. What it uses comes back one period after the time at
//! which that part became usable, so in no window of one period does it get more than its budget, however it sleeps
//! and wakes. A budget that equals its period is a round-robin slice: it comes back at once, behind the others of the
//! same priority. Pure arithmetic over ticks of the kernel's clock.

/// How many parts of a budget may be under way. Past that, the newest joins the last one: later, never more.
const REFILLS: usize = 8;

/// A part of the budget and when it can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Refill {
    time: u64,
    amount: u64,
}

/// What a charge left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Some budget is usable still.
    Some,
    /// The slice is over and a new one has begun: others of the same priority come first.
    NextSlice,
    /// Nothing until [`Budget::next_time`].
    Nothing,
}

/// Budget, period and what is left of it.
#[derive(Clone, Debug)]
pub struct Budget {
    budget: u64,
    period: u64,
    refills: [Refill; REFILLS],
    first: usize,
    count: usize,
    consumed: u64,
}

impl Budget {
    /// A full budget, usable from `now`. `0 < budget <= period`, in ticks; what is outside is brought inside.
    #[must_use]
    pub fn new(budget: u64, period: u64, now: u64) -> Self {
        let budget = budget.max(1);
        let mut refills = [Refill::default(); REFILLS];
        refills[0] = Refill { time: now, amount: budget };
        Self { budget, period: period.max(budget), refills, first: 0, count: 1, consumed: 0 }
    }

    /// Whether this is a round-robin slice.
    #[must_use]
    pub fn is_slice(&self) -> bool {
        self.budget == self.period
    }

    /// All ticks ever charged.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// When the next part can be used; in the past when it can be used now.
    #[must_use]
    pub fn next_time(&self) -> u64 {
        self.head().time
    }

    /// How many ticks can be used from `now` on; 0 for none.
    #[must_use]
    pub fn available(&self, now: u64) -> u64 {
        let head = self.head();
        if head.time <= now { head.amount } else { 0 }
    }

    /// The thread begins to want the CPU: parts that lie in the past become one that starts now, so that a long sleep
    /// does not let it use two periods' budgets back to back.
    pub fn wake(&mut self, now: u64) {
        if self.is_slice() || self.head().time > now {
            return;
        }
        self.head_mut().time = now;
        while self.count > 1 {
            let head = *self.head();
            let second = self.refills[(self.first + 1) % REFILLS];
            if second.time > now.saturating_add(head.amount) {
                break;
            }
            self.first = (self.first + 1) % REFILLS;
            self.count -= 1;
            *self.head_mut() = Refill { time: now, amount: head.amount + second.amount };
        }
    }

    /// Takes what the thread used since it got the CPU. More than was left (a late timer) is taken from what comes.
    pub fn charge(&mut self, used: u64, now: u64) -> Left {
        self.consumed = self.consumed.saturating_add(used);
        if self.is_slice() {
            if used < self.head().amount {
                self.head_mut().amount -= used;
                return Left::Some;
            }
            *self.head_mut() = Refill { time: now, amount: self.budget };
            return Left::NextSlice;
        }
        // An over-run by whole budgets costs whole periods.
        let periods = used / self.budget;
        if periods > 0 {
            let delay = periods.saturating_mul(self.period);
            for refill in &mut self.refills {
                refill.time = refill.time.saturating_add(delay);
            }
        }
        let mut used = used % self.budget;
        // All parts together are one budget, so this ends before it has gone around.
        while used >= self.head().amount {
            let head = *self.head();
            used -= head.amount;
            self.pop();
            self.push(Refill { time: head.time.saturating_add(self.period), amount: head.amount });
        }
        if used > 0 {
            let head = *self.head();
            self.head_mut().amount -= used;
            self.head_mut().time = head.time.saturating_add(used);
            self.push(Refill { time: head.time.saturating_add(self.period), amount: used });
        }
        if self.head().time <= now { Left::Some } else { Left::Nothing }
    }

    fn head(&self) -> &Refill {
        &self.refills[self.first]
    }

    fn head_mut(&mut self) -> &mut Refill {
        &mut self.refills[self.first]
    }

    fn pop(&mut self) {
        self.first = (self.first + 1) % REFILLS;
        self.count -= 1;
    }

    fn push(&mut self, refill: Refill) {
        if self.count == 0 {
            self.refills[self.first] = refill;
            self.count = 1;
            return;
        }
        let last = &mut self.refills[(self.first + self.count - 1) % REFILLS];
        if self.count == REFILLS || last.time.saturating_add(last.amount) >= refill.time {
            // Adjacent, or no room: the earlier part waits for the later one's time less what it holds itself.
            let joined = refill.time.saturating_sub(last.amount).max(last.time);
            *last = Refill { time: joined, amount: last.amount + refill.amount };
            return;
        }
        self.refills[(self.first + self.count) % REFILLS] = refill;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Left};
    use proptest::prelude::*;

    #[test]
    fn a_used_budget_comes_back_one_period_after_it_became_usable() {
        let mut budget = Budget::new(10, 100, 0);
        assert_eq!(budget.available(0), 10);
        assert_eq!(budget.charge(10, 10), Left::Nothing);
        assert_eq!(budget.next_time(), 100);
        assert_eq!(budget.available(99), 0);
        assert_eq!(budget.available(100), 10);
    }

    #[test]
    fn a_slice_comes_back_at_once_behind_the_others() {
        let mut budget = Budget::new(10, 10, 0);
        assert_eq!(budget.charge(4, 4), Left::Some);
        assert_eq!(budget.available(4), 6);
        assert_eq!(budget.charge(6, 10), Left::NextSlice);
        assert_eq!(budget.available(10), 10);
    }

    #[test]
    fn an_over_run_is_paid_by_the_periods_that_follow() {
        let mut budget = Budget::new(10, 100, 0);
        assert_eq!(budget.charge(25, 25), Left::Nothing);
        // Two budgets cost two periods; of the third, half is left.
        assert_eq!(budget.available(204), 0);
        assert_eq!(budget.available(205), 5);
        assert_eq!(budget.charge(u64::MAX, 300), Left::Nothing);
    }

    proptest! {
        /// The definition of a sporadic server: no window of one period sees more than the budget.
        #[test]
        fn no_window_of_a_period_gets_more_than_the_budget(
            budget in 1u64..50,
            spare in 1u64..100,
            steps in prop::collection::vec((0u64..80, 1u64..60), 1..200),
        ) {
            let period = budget + spare;
            let mut server = Budget::new(budget, period, 0);
            let mut now = 0u64;
            let mut ran: Vec<(u64, u64)> = Vec::new();
            for (sleep, want) in steps {
                now += sleep;
                server.wake(now);
                let mut want = want;
                while want > 0 {
                    let usable = server.available(now);
                    if usable == 0 {
                        now = server.next_time();
                        continue;
                    }
                    let used = usable.min(want);
                    ran.push((now, used));
                    now += used;
                    want -= used;
                    server.charge(used, now);
                }
            }
            for &(start, _) in &ran {
                let end = start + period;
                let total: u64 = ran.iter()
                    .map(|&(from, length)| (from + length).min(end).saturating_sub(from.max(start)))
                    .sum();
                prop_assert!(total <= budget, "{total} of {budget} in [{start}, {end})");
            }
        }

        /// A thread that always wants the CPU gets its whole share.
        #[test]
        fn a_busy_thread_gets_its_share(budget in 1u64..50, spare in 1u64..100, periods in 1u64..50) {
            let period = budget + spare;
            let mut server = Budget::new(budget, period, 0);
            let (mut now, mut got) = (0, 0);
            while now < periods * period {
                let usable = server.available(now);
                if usable == 0 {
                    now = server.next_time();
                    continue;
                }
                now += usable;
                got += usable;
                server.charge(usable, now);
            }
            prop_assert!(got >= periods * budget, "{got} in {periods} periods of {budget}");
        }
    }
}
