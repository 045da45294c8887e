//! The simulated RAM, and the heap of kernel objects.
#![expect(unsafe_code, reason = "it vouches for simulated RAM")]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;

use dragonfly_memory::{Heap, HostPhys, PhysicalMemory};

use super::{Fake, turns};

// SAFETY: The memory comes from and goes to the host's allocator with the caller's layout.
unsafe impl Heap for Fake {
    fn allocate(self, layout: Layout) -> Option<NonNull<u8>> {
        turns::may_switch();
        let machine = self.machine();
        machine.objects_left.try_update(SeqCst, SeqCst, |left| left.checked_sub(1)).ok()?;
        // SAFETY: `Heap` is asked only for layouts with a size.
        let memory = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        machine.objects.fetch_add(1, SeqCst);
        Some(memory)
    }

    unsafe fn deallocate(self, memory: NonNull<u8>, layout: Layout) {
        self.machine().objects.fetch_sub(1, SeqCst);
        // SAFETY: The caller passes what `allocate` gave.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
        turns::may_switch();
    }
}

// SAFETY: It is the simulated RAM.
unsafe impl PhysicalMemory for Fake {
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        turns::may_switch();
        self.machine().memory.pointer(address)
    }

    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        self.machine().memory.address(pointer)
    }
}
