//! The report of a guest that cannot go on.

use alloc::vec::Vec;
use core::fmt;

use dragonfly_abi::arch::guest::{General, Segment, VcpuState};

use crate::exits::Exits;

/// The most callers that a back-trace shows.
const MAX_FRAMES: usize = 32;

/// How many bytes of code are shown.
pub(crate) const CODE_SIZE: usize = 16;

/// The most bytes between a frame and its caller's that make sense.
const MAX_FRAME_SIZE: u64 = 64 << 10;

/// CR0.PG.
const PAGING: u64 = 1 << 31;
/// EFER.LMA.
const LONG_MODE: u64 = 1 << 10;
/// Access rights of a segment: 64-bit code.
const CODE_64: u32 = 1 << 13;

/// What is told of a vCPU that cannot go on.
#[derive(Clone, Debug)]
pub(crate) struct Report<'r> {
    /// The vCPU's number.
    pub(crate) vcpu: u32,
    /// Its registers.
    pub(crate) state: &'r VcpuState,
    /// The bytes from its instruction on, as many as could be read.
    pub(crate) code: Vec<u8>,
    /// Return addresses, the innermost first.
    pub(crate) callers: Vec<u64>,
}

impl<'r> Report<'r> {
    /// Collects it. `read` reads bytes at a linear address; it gives how many there are.
    pub(crate) fn new(vcpu: u32, state: &'r VcpuState, mut read: impl FnMut(u64, &mut [u8]) -> usize) -> Self {
        let mut code = [0; CODE_SIZE];
        let size = read(state.cs.base.wrapping_add(state.rip), &mut code);
        let code = code.iter().take(size).copied().collect();
        let mut word = |address| {
            let mut bytes = [0; 8];
            (read(address, &mut bytes) == bytes.len()).then(|| u64::from_le_bytes(bytes))
        };
        Self { vcpu, state, code, callers: if is_64_bit(state) { callers(state, &mut word) } else { Vec::new() } }
    }
}

fn is_64_bit(state: &VcpuState) -> bool {
    state.efer & LONG_MODE != 0 && state.cr0 & PAGING != 0 && state.cs.attributes & CODE_64 != 0
}

/// Follows frame pointers: each points to the caller's, above which is the address to return to (System V ABI 3.2.2).
fn callers(state: &VcpuState, word: &mut impl FnMut(u64) -> Option<u64>) -> Vec<u64> {
    let mut callers = Vec::new();
    let mut frame = state.general[General::Rbp as usize];
    while callers.len() < MAX_FRAMES && frame.is_multiple_of(8) {
        let (Some(next), Some(caller)) = (word(frame), frame.checked_add(8).and_then(&mut *word)) else { break };
        if caller == 0 {
            break;
        }
        callers.push(caller);
        // Frames of callers lie above, and not far: anything else is a register that holds something else.
        match next.checked_sub(frame) {
            Some(1..=MAX_FRAME_SIZE) => frame = next,
            _ => break,
        }
    }
    callers
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state;
        writeln!(formatter, "vCPU {}: rip {:016x}  rflags {:x}", self.vcpu, state.rip, state.rflags)?;
        for (line, names) in state.general.chunks(4).zip(NAMES.chunks(4)) {
            for (value, name) in line.iter().zip(names) {
                write!(formatter, "{name} {value:016x}  ")?;
            }
            writeln!(formatter)?;
        }
        let VcpuState { cr0, cr2, cr3, cr4, efer, .. } = state;
        writeln!(formatter, "cr0 {cr0:x}  cr2 {cr2:x}  cr3 {cr3:x}  cr4 {cr4:x}  efer {efer:x}")?;
        let segments = [
            ("cs", state.cs),
            ("ss", state.ss),
            ("ds", state.ds),
            ("es", state.es),
            ("fs", state.fs),
            ("gs", state.gs),
            ("tr", state.tr),
        ];
        for (name, Segment { selector, attributes, limit, base, .. }) in segments {
            writeln!(formatter, "{name} {selector:04x} base {base:x} limit {limit:x} rights {attributes:x}")?;
        }
        let (gdtr, idtr) = (state.gdtr, state.idtr);
        writeln!(
            formatter,
            "gdt base {:x} limit {:x}, idt base {:x} limit {:x}",
            gdtr.base, gdtr.limit, idtr.base, idtr.limit
        )?;
        write!(formatter, "code:")?;
        for byte in &self.code {
            write!(formatter, " {byte:02x}")?;
        }
        if !self.callers.is_empty() {
            write!(formatter, "\ncalled from:")?;
        }
        for caller in &self.callers {
            write!(formatter, " {caller:x}")?;
        }
        write!(formatter, "\nexits: {}", Exits(&state.exits))
    }
}

/// The general registers in their order.
const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"];

#[cfg(test)]
mod tests {
    use dragonfly_abi::arch::guest::{General, VcpuState};
    use zerocopy::FromZeros;

    use super::{CODE_64, LONG_MODE, MAX_FRAMES, PAGING, Report};

    fn state() -> VcpuState {
        let mut state = VcpuState::new_zeroed();
        state.efer = LONG_MODE;
        state.cr0 = PAGING;
        state.cs.attributes = CODE_64;
        state
    }

    /// Memory of words from address 0x1000 on.
    fn memory(words: &[u64]) -> impl FnMut(u64, &mut [u8]) -> usize {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        move |address, into| {
            let start = usize::try_from(address).unwrap_or(usize::MAX).checked_sub(0x1000);
            let from = start.and_then(|start| bytes.get(start..)).unwrap_or_default();
            let size = from.len().min(into.len());
            into[..size].copy_from_slice(&from[..size]);
            size
        }
    }

    #[test]
    fn the_callers_are_found_by_the_frame_pointers() {
        let mut state = state();
        state.general[General::Rbp as usize] = 0x1000;
        let words = [0x1010, 0xaaaa, 0x1020, 0xbbbb, 0, 0xcccc];
        assert_eq!(Report::new(0, &state, memory(&words)).callers, [0xaaaa, 0xbbbb, 0xcccc]);
    }

    #[test]
    fn a_frame_pointer_that_leads_nowhere_or_round_ends_the_trace() {
        let mut state = state();
        state.general[General::Rbp as usize] = 0x1000;
        for (words, found) in [(vec![0x1000, 1], 1), (vec![0xfff0, 1], 1), (vec![], 0), (vec![0x1010, 0], 0)] {
            assert_eq!(Report::new(0, &state, memory(&words)).callers.len(), found, "{words:?}");
        }
        let endless: Vec<u64> = (0..1000).flat_map(|index| [0x1010 + index * 16, 7]).collect();
        assert_eq!(Report::new(0, &state, memory(&endless)).callers.len(), MAX_FRAMES);
        state.general[General::Rbp as usize] = u64::MAX - 7;
        assert!(Report::new(0, &state, |_, into| into.len()).callers.is_empty());
    }

    #[test]
    fn a_guest_that_is_not_in_64_bit_mode_has_no_trace() {
        let mut state = state();
        state.general[General::Rbp as usize] = 0x1000;
        state.cs.attributes = 0;
        assert!(Report::new(0, &state, memory(&[0x1010, 0xaaaa])).callers.is_empty());
    }

    #[test]
    fn registers_code_and_counters_are_told() {
        let mut state = state();
        state.rip = 0x1000;
        state.general[0] = 0xfeed;
        state.exits[0] = 7;
        state.exits[6] = 3;
        let told = Report::new(2, &state, memory(&[0x1122_3344_5566_7788])).to_string();
        for part in ["vCPU 2: rip 0000000000001000", "rax 000000000000feed", "code: 88 77 66 55", "exits: all 7 port 3"]
        {
            assert!(told.contains(part), "{part} in\n{told}");
        }
    }
}
