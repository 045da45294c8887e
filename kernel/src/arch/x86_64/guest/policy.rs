//! CPUID and MSR tables that the VMM has filled in: small hash tables, so that a look-up is a few instructions.

use dragonfly_abi::Status;
use dragonfly_abi::guest::MsrPolicy;
use dragonfly_memory::{Charge, Unique};

use super::{KernelHeap, X86};
use crate::Ref;
use crate::arch::Arch;
use crate::domain::Domain;

/// Slots of the CPUID table: a power of two, of which a quarter stays free.
const CPUID_SLOTS: usize = 128;
/// Slots of the MSR table.
const MSR_SLOTS: usize = 64;

/// A table with open addressing. Keys are never 0.
struct Table<V, const SLOTS: usize> {
    keys: [u64; SLOTS],
    values: [V; SLOTS],
    count: usize,
    _charge: Charge<KernelHeap>,
}

impl<V: Copy, const SLOTS: usize> Table<V, SLOTS> {
    /// Where a key is, or would be.
    #[inline]
    fn slot(&self, key: u64) -> usize {
        let mut slot = ((key ^ key >> 27 ^ key >> 32 << 3) as usize) % SLOTS;
        // Ends: some slots are always free.
        while self.keys[slot] != key && self.keys[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        slot
    }

    #[inline]
    fn get(&self, key: u64) -> Option<&V> {
        let slot = self.slot(key);
        (self.keys[slot] == key).then(|| &self.values[slot])
    }

    fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let slot = self.slot(key);
        (self.keys[slot] == key).then(|| &mut self.values[slot])
    }

    fn set(&mut self, key: u64, value: V) -> Result<(), Status> {
        let slot = self.slot(key);
        if self.keys[slot] == 0 {
            if self.count >= SLOTS / 4 * 3 {
                return Err(Status::NoHandles);
            }
            self.count += 1;
            self.keys[slot] = key;
        }
        self.values[slot] = value;
        Ok(())
    }

    fn make<T>(
        domain: &Ref<Domain<X86>, X86>,
        empty: V,
        wrap: impl FnOnce(Self) -> T,
    ) -> Result<Unique<T, KernelHeap>, Status> {
        let table = Self { keys: [0; SLOTS], values: [empty; SLOTS], count: 0, _charge: domain.charge_object::<T>()? };
        Unique::try_new(X86.heap(), wrap(table)).map_err(|_| Status::OutOfMemory)
    }
}

/// What CPUID gives.
pub struct CpuidTable(Table<[u32; 4], CPUID_SLOTS>);

/// Bit of a CPUID key: there is no sub-leaf. No leaf is 0 with it.
const WHOLE_LEAF: u64 = 1 << 63;
/// Bit of a CPUID key with a sub-leaf.
const SUBLEAF: u64 = 1 << 62;

impl CpuidTable {
    /// An empty table.
    pub fn make(domain: &Ref<Domain<X86>, X86>) -> Result<Unique<Self, KernelHeap>, Status> {
        Table::make(domain, [0; 4], Self)
    }

    /// Sets an entry.
    pub fn add(&mut self, leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> Result<(), Status> {
        self.0.set(key_of(leaf, subleaf)?, registers)
    }

    /// EAX, EBX, ECX and EDX.
    #[inline]
    pub fn get(&self, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
        let whole = self.0.get(WHOLE_LEAF | u64::from(leaf));
        whole.or_else(|| self.0.get(key_of(leaf, Some(subleaf)).ok()?)).copied()
    }
}

fn key_of(leaf: u32, subleaf: Option<u32>) -> Result<u64, Status> {
    match subleaf {
        None => Ok(WHOLE_LEAF | u64::from(leaf)),
        // Sub-leaves are small numbers.
        Some(subleaf) if subleaf < 1 << 16 => Ok(SUBLEAF | u64::from(subleaf) << 32 | u64::from(leaf)),
        Some(_) => Err(Status::BadArgument),
    }
}

/// What becomes of accesses to an MSR.
#[derive(Clone, Copy, Debug)]
pub struct MsrRule {
    /// What a read gives.
    pub value: u64,
    /// What is done without the VMM.
    pub policy: MsrPolicy,
}

/// What the VMM has said of MSRs.
pub struct MsrTable(Table<MsrRule, MSR_SLOTS>);

impl MsrTable {
    /// An empty table.
    pub fn make(domain: &Ref<Domain<X86>, X86>) -> Result<Unique<Self, KernelHeap>, Status> {
        Table::make(domain, MsrRule { value: 0, policy: MsrPolicy::empty() }, Self)
    }

    /// Sets an entry.
    pub fn add(&mut self, register: u32, value: u64, policy: MsrPolicy) -> Result<(), Status> {
        self.0.set(WHOLE_LEAF | u64::from(register), MsrRule { value, policy })
    }

    /// The rule for a register.
    pub fn get(&self, register: u32) -> Option<MsrRule> {
        self.0.get(WHOLE_LEAF | u64::from(register)).copied()
    }

    /// Replaces a register's value.
    pub fn store(&mut self, register: u32, value: u64) {
        if let Some(rule) = self.0.get_mut(WHOLE_LEAF | u64::from(register)) {
            rule.value = value;
        }
    }
}
