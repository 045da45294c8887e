//! Lists of fixed capacity that count what did not fit.

use arrayvec::ArrayVec;

use crate::problem::{Problem, Signature};

/// Fills a list and reports at its end how many elements found no room.
pub(crate) struct Filler<'a, T, const N: usize> {
    list: &'a mut ArrayVec<T, N>,
    dropped: usize,
}

impl<'a, T, const N: usize> Filler<'a, T, N> {
    pub(crate) fn new(list: &'a mut ArrayVec<T, N>) -> Self {
        list.clear();
        Self { list, dropped: 0 }
    }

    pub(crate) fn push(&mut self, value: T) {
        if self.list.try_push(value).is_err() {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    pub(crate) fn iter(&self) -> core::slice::Iter<'_, T> {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> core::slice::IterMut<'_, T> {
        self.list.iter_mut()
    }

    /// Says that `name` in the table `signature` is longer than the list, if it is.
    pub(crate) fn finish(self, signature: Signature, name: &'static str, report: &mut dyn FnMut(Problem)) {
        if self.dropped > 0 {
            report(Problem::Truncated { signature, list: name, capacity: N, dropped: self.dropped });
        }
    }
}
