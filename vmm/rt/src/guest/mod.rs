//! Virtual CPUs with the page of registers that they share with the kernel.

mod state_page;

use core::ops::Deref;

use dragonfly_abi::{PAGE_SIZE, Status};

pub use state_page::StatePage;

use crate::address_space;
use crate::sys::{Owned, Vcpu, Vm};

/// A vCPU, its calls, and its state page. Dropping it gives both up.
pub struct VirtualCpu {
    vcpu: Owned<Vcpu>,
    state: StatePage,
}

impl VirtualCpu {
    /// Makes the vCPU with this number.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE of the virtual machine,
    /// [`Status::BadArgument`] for a number past the last, [`Status::Busy`] for one that is taken,
    /// [`Status::NoHandles`], [`Status::QuotaExceeded`], [`Status::OutOfMemory`] also if no address is free.
    pub fn create(vm: Vm, number: u32) -> Result<Self, Status> {
        let address = address_space::take(PAGE_SIZE, PAGE_SIZE).ok_or(Status::OutOfMemory)?;
        match Vcpu::create(vm, number, address) {
            Ok(vcpu) => Ok(Self { vcpu, state: StatePage::at(address) }),
            Err(status) => {
                address_space::give(address, PAGE_SIZE);
                Err(status)
            }
        }
    }

    /// The registers.
    #[inline(always)]
    #[must_use]
    pub const fn state(&self) -> &StatePage {
        &self.state
    }
}

impl Deref for VirtualCpu {
    type Target = Vcpu;

    #[inline(always)]
    fn deref(&self) -> &Vcpu {
        &self.vcpu
    }
}
