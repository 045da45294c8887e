//! A function for tests: registers of which some bits can be written.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::config::{BASE_ADDRESS, BUS_NUMBERS, COMMAND, COMMAND_IO, COMMAND_MEMORY, HEADER_TYPE, ID, Registers};

/// A function's first 64 bytes. Copies are of the same function.
#[derive(Clone)]
pub(crate) struct Model {
    /// Values, and which bits can be written.
    registers: Rc<RefCell<[(u32, u32); 16]>>,
    moved: Rc<Cell<bool>>,
}

impl Model {
    /// No function: all bits are ones.
    pub(crate) fn nothing() -> Self {
        Self { registers: Rc::new(RefCell::new([(u32::MAX, 0); 16])), moved: Rc::default() }
    }

    /// An endpoint without registers in memory.
    pub(crate) fn endpoint(vendor: u16, device: u16) -> Self {
        let model = Self { registers: Rc::default(), moved: Rc::default() };
        model.set(ID, u32::from(device) << 16 | u32::from(vendor), 0);
        model.set(COMMAND, 0x0010_0000, 0x0407);
        model
    }

    /// A bridge to a bus.
    pub(crate) fn bridge(bus: u8) -> Self {
        let model = Self::endpoint(0x1b36, 0xc);
        model.set(HEADER_TYPE, 1 << 16, 0);
        model.set(BUS_NUMBERS, u32::from(bus) << 8, 0);
        model
    }

    /// The same with the sign that there are functions beside number 0.
    pub(crate) fn with_more_functions(self) -> Self {
        self.set(HEADER_TYPE, 1 << 23, 0);
        self
    }

    /// The same with a base address register: its value, and which of its bits can be written.
    pub(crate) fn base(self, number: u64, value: u32, writable: u32) -> Self {
        self.set(BASE_ADDRESS + 4 * number, value, writable);
        self
    }

    /// Whether a base address register was written while the function answered to its address.
    pub(crate) fn was_moved_while_it_answered(&self) -> bool {
        self.moved.get()
    }

    fn set(&self, offset: u64, value: u32, writable: u32) {
        self.registers.borrow_mut()[offset as usize / 4] = (value, writable);
    }
}

impl Registers for Model {
    fn read(&self, offset: u64) -> u32 {
        self.registers.borrow()[offset as usize / 4].0
    }

    fn write(&self, offset: u64, value: u32) {
        if (BASE_ADDRESS..BASE_ADDRESS + 24).contains(&offset) && self.command() & (COMMAND_IO | COMMAND_MEMORY) != 0 {
            self.moved.set(true);
        }
        let (old, writable) = self.registers.borrow()[offset as usize / 4];
        self.set(offset, old & !writable | value & writable, writable);
    }
}
