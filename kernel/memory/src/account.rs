//! Accounts: how many bytes of memory somebody may use, and uses.
//!
//! Accounts form a tree: a child's limit is taken from its parent when the child is made, and given back when it goes.
//! So all that is used is never more than what the root has.

use core::fmt;

use crate::heap::{Heap, OutOfMemory};
use crate::reference::Ref;
use crate::sync::{AtomicU64, Ordering};

/// The account has too little left. Whoever pays from it asked for too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotaExceeded;

impl fmt::Display for QuotaExceeded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the account has too little left")
    }
}

/// How many accounts there may be from the root to any other: with the last reference to one, all above it may go, each
/// within the drop of the one below.
pub const MAX_ACCOUNT_DEPTH: u32 = 32;

/// Why a child account cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccountError {
    /// The parent has too little left, or is [`MAX_ACCOUNT_DEPTH`] accounts deep.
    QuotaExceeded,
    /// There is no memory for the account itself.
    OutOfMemory,
}

/// A limit of bytes and how many of them are used.
pub struct Account<H: Heap> {
    parent: Option<Ref<Account<H>, H>>,
    depth: u32,
    limit: u64,
    used: AtomicU64,
}

impl<H: Heap> Account<H> {
    /// An account of its own.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn root(heap: H, limit: u64) -> Result<Ref<Self, H>, OutOfMemory> {
        Ref::try_new(heap, Self { parent: None, depth: 1, limit, used: AtomicU64::new(0) })
    }

    /// An account whose limit is taken from `parent`, until it is dropped.
    ///
    /// # Errors
    /// See [`AccountError`]; the parent is then as before.
    pub fn child(heap: H, parent: &Ref<Self, H>, limit: u64) -> Result<Ref<Self, H>, AccountError> {
        if parent.depth >= MAX_ACCOUNT_DEPTH {
            return Err(AccountError::QuotaExceeded);
        }
        parent.take(limit).map_err(|QuotaExceeded| AccountError::QuotaExceeded)?;
        let account = Self { parent: Some(parent.clone()), depth: parent.depth + 1, limit, used: AtomicU64::new(0) };
        // Without memory the account is dropped, which gives its limit back.
        Ref::try_new(heap, account).map_err(|OutOfMemory| AccountError::OutOfMemory)
    }

    /// Uses so many bytes more.
    ///
    /// # Errors
    /// Less is left; nothing changes then.
    pub fn take(&self, bytes: u64) -> Result<(), QuotaExceeded> {
        // Relaxed: the number orders nothing else; what the bytes stand for is handed over by other means.
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map(|_| ()).map_err(|_| QuotaExceeded)
    }

    /// Gives back bytes that were taken.
    pub fn give_back(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more given back than taken");
    }

    /// Uses bytes for as long as the charge lives.
    ///
    /// # Errors
    /// Less is left.
    pub fn charge(account: &Ref<Self, H>, bytes: u64) -> Result<Charge<H>, QuotaExceeded> {
        account.take(bytes)?;
        Ok(Charge { account: account.clone(), bytes })
    }

    /// Bytes that may be used.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use, children's limits among them.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that are left at this moment.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used())
    }
}

impl<H: Heap> Drop for Account<H> {
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            parent.give_back(self.limit);
        }
    }
}

/// Bytes of an account that somebody uses; dropping it gives them back.
pub struct Charge<H: Heap> {
    account: Ref<Account<H>, H>,
    bytes: u64,
}

impl<H: Heap> Drop for Charge<H> {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::host::HostHeap;

    #[test]
    fn what_is_charged_comes_back_when_the_charge_goes() {
        let account = Account::root(HostHeap::leak(), 100).unwrap();
        let charge = Account::charge(&account, 60).unwrap();
        assert_eq!((account.used(), account.left()), (60, 40));
        assert_eq!(account.take(41), Err(QuotaExceeded));
        assert_eq!(account.take(u64::MAX), Err(QuotaExceeded));
        drop(charge);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn a_child_takes_its_limit_from_its_parent_until_it_goes() {
        let heap = HostHeap::leak();
        let parent = Account::root(heap, 100).unwrap();
        let child = Account::child(heap, &parent, 70).unwrap();
        assert_eq!(parent.left(), 30);
        assert_eq!(Account::child(heap, &parent, 31).err(), Some(AccountError::QuotaExceeded));
        let charge = Account::charge(&child, 10).unwrap();
        drop(child);
        // What is charged keeps the account.
        assert_eq!(parent.left(), 30);
        drop(charge);
        assert_eq!(parent.left(), 100);
    }

    #[test]
    fn without_memory_the_parent_keeps_its_limit() {
        let heap = HostHeap::leak();
        let parent = Account::root(heap, 100).unwrap();
        heap.fail_after(0);
        assert_eq!(Account::child(heap, &parent, 70).err(), Some(AccountError::OutOfMemory));
        assert_eq!(parent.used(), 0);
    }

    #[test]
    fn a_chain_of_accounts_is_limited_and_goes_as_a_whole() {
        let heap = HostHeap::leak();
        let root = Account::root(heap, 100).unwrap();
        let mut last = root.clone();
        for _ in 1..MAX_ACCOUNT_DEPTH {
            last = Account::child(heap, &last, 1).unwrap();
        }
        assert_eq!(Account::child(heap, &last, 1).err(), Some(AccountError::QuotaExceeded));
        drop(last);
        assert_eq!((heap.objects(), root.used()), (1, 0));
    }

    #[test]
    fn threads_never_use_more_than_the_limit_together() {
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        let account = Account::root(HostHeap::leak(), 100).unwrap();
        let held = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for bytes in [30, 40, 60] {
                let (account, held) = (&account, &held);
                scope.spawn(move || {
                    for _ in 0..rounds {
                        if account.take(bytes).is_ok() {
                            assert!(held.fetch_add(bytes, Ordering::Relaxed) + bytes <= 100);
                            held.fetch_sub(bytes, Ordering::Relaxed);
                            account.give_back(bytes);
                        }
                    }
                });
            }
        });
        assert_eq!(account.used(), 0);
    }
}
