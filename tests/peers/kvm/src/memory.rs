//! The guest's memory.
#![expect(unsafe_code, reason = "memory that a guest writes to while this process runs is outside Rust's rules")]

use std::{ffi::c_void, ptr};

use anyhow::{Context, Result};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Alignment that lets the host use large pages on both sides.
const ALIGNMENT: usize = 2 << 20;

/// Memory from the guest's address 0 on, committed by the host when it is touched.
#[derive(Debug)]
pub struct Memory {
    mapping: *mut c_void,
    mapping_size: usize,
    start: *mut u8,
    size: usize,
}

impl Memory {
    /// Reserves `size` bytes.
    ///
    /// # Errors
    /// Fails when the host gives no address space.
    pub fn new(size: usize) -> Result<Self> {
        let mapping_size = size.checked_add(ALIGNMENT).context("the memory is too large")?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping where the host chooses overlaps nothing.
        let mapping = unsafe { mmap_anonymous(ptr::null_mut(), mapping_size, protection, flags) }
            .context("cannot reserve the guest's memory")?;
        let start = mapping.cast::<u8>();
        // The mapping is longer by the alignment, so the result stays within.
        let start = start.wrapping_add(start.align_offset(ALIGNMENT));
        Ok(Self { mapping, mapping_size, start, size })
    }

    /// Writes `bytes` at the guest's address `address`.
    ///
    /// # Errors
    /// Fails when they do not fit.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let offset = usize::try_from(address)?;
        let end = offset.checked_add(bytes.len()).filter(|&end| end <= self.size);
        end.with_context(|| format!("{} bytes at {address:#x} are outside the guest's memory", bytes.len()))?;
        // SAFETY: the range was checked to lie in the mapping, and `bytes` is not part of it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(offset), bytes.len()) };
        Ok(())
    }

    /// Makes this the memory of `vm`.
    ///
    /// # Errors
    /// Fails when KVM refuses.
    ///
    /// # Safety
    /// The caller keeps this for as long as a vCPU of `vm` may run.
    pub unsafe fn give_to(&self, vm: &VmFd) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: self.size as u64,
            userspace_addr: self.start.expose_provenance() as u64,
        };
        // SAFETY: the region is this mapping, which the caller keeps.
        unsafe { vm.set_user_memory_region(region) }.context("KVM refuses the guest's memory")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no vCPU that could use it runs any more.
        let unmapped = unsafe { munmap(self.mapping, self.mapping_size) };
        debug_assert!(unmapped.is_ok(), "the mapping was made by mmap");
    }
}
