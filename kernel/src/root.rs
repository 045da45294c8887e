//! The first domain: the supervisor, made from the bundle.

use dragonfly_abi::{ABI_VERSION, PAGE_SIZE, PRIORITIES, Rights, StartHandles, StartInfo, Status};
use dragonfly_memory::{Account, HostPhys, ObjectOffset, SpaceAddr, UserVirt};
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;

use crate::arch::Arch;
use crate::capability::{Capability, Derivation, Object, Place};
use crate::cpu::Cpu;
use crate::domain::{Domain, DomainLimits, publish};
use crate::memory_object::Memory;
use crate::space::{DomainSpace, MappedRange};
use crate::system_call::thread::ThreadPlan;
use crate::teardown::Progress;
use crate::{Kernel, Ref};

/// Name of the supervisor's program in the bundle.
const SUPERVISOR: &str = "supervisor";
/// Its stack: a size to which it is aligned, so that the runtime finds its bottom.
const STACK_SIZE: u64 = 64 << 10;
/// Top of its stack.
const STACK_TOP: u64 = 0x7f00_0000_0000;
/// Its start page.
const START_INFO: u64 = STACK_TOP + (1 << 20);
/// Its message buffer.
const MESSAGE_BUFFER: u64 = START_INFO + (1 << 20);
/// Where it may put a heap.
const HEAP: (u64, u64) = (0x10_0000_0000, 0x20_0000_0000);
/// Its priority: in the middle, so that there is room above and below.
const PRIORITY: u8 = 32;

/// What the supervisor is made from.
pub struct RootPlan<'a> {
    /// The bundle's archive.
    pub bundle: &'a [u8],
    /// Where it is; whole pages.
    pub bundle_frames: (HostPhys, u64),
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Frequency of the time-stamp counter in Hz.
    pub tsc_hz: u64,
}

/// Why there is no supervisor. The bundle's fault, or there is too little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootError {
    /// The bundle has no such entry, or is no archive.
    NoProgram,
    /// The program is no executable for this machine.
    NotExecutable,
    /// A segment lies where none may, overlaps another, or is writable and executable.
    BadSegment,
    /// An object could not be made.
    Object(Status),
}

impl core::fmt::Display for RootError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoProgram => write!(formatter, "the bundle holds no program \"{SUPERVISOR}\""),
            Self::NotExecutable => write!(formatter, "\"{SUPERVISOR}\" is no static x86-64 ELF executable"),
            Self::BadSegment => write!(formatter, "\"{SUPERVISOR}\" has a segment that cannot be mapped as it asks"),
            Self::Object(status) => write!(formatter, "\"{SUPERVISOR}\" cannot be set up: {status}"),
        }
    }
}

impl From<Status> for RootError {
    fn from(status: Status) -> Self {
        Self::Object(status)
    }
}

impl<A: Arch> Kernel<A> {
    /// Makes the supervisor with all there is and lets it run on this CPU.
    pub fn start_root(&'static self, cpu: &mut Cpu<A>, plan: &RootPlan<'_>) -> Result<(), RootError> {
        let archive = dragonfly_archive::Archive::new(plan.bundle);
        let program = archive.find(SUPERVISOR).ok().flatten().ok_or(RootError::NoProgram)?.data;
        let image = elf::ElfBytes::<LittleEndian>::minimal_parse(program).map_err(|_| RootError::NotExecutable)?;
        if image.ehdr.e_machine != EM_X86_64 || image.ehdr.e_type != ET_EXEC {
            return Err(RootError::NotExecutable);
        }
        let domain = self.new_root_domain()?;
        for segment in image.segments().ok_or(RootError::NotExecutable)?.iter().filter(|s| s.p_type == PT_LOAD) {
            self.load_segment(&domain, &segment, program)?;
        }
        let writable = Rights::READ | Rights::WRITE;
        self.new_mapping(&domain, STACK_TOP - STACK_SIZE, STACK_SIZE, writable, &[])?;
        let info = self.start_info(plan);
        self.new_mapping(&domain, START_INFO, PAGE_SIZE, Rights::READ, &info)?;
        let plan_of_thread = ThreadPlan {
            cpu: cpu.id,
            priority: PRIORITY,
            entry: image.ehdr.e_entry,
            stack: STACK_TOP,
            buffer: UserVirt::new(MESSAGE_BUFFER),
            argument: START_INFO,
        };
        let thread = self.new_thread(&domain, &plan_of_thread)?;
        // The order gives the slots that `StartHandles` names.
        let (start, size) = plan.bundle_frames;
        let bundle = Memory::of_range(&domain, start, size)?;
        let bundle = Ref::<_, A>::try_new(self.arch.heap(), bundle).map_err(|_| Status::OutOfMemory)?;
        let handles = [
            publish(self.arch, &domain, &domain, Object::Domain(domain.clone()), Rights::all())?,
            publish(self.arch, &domain, &domain, Object::Thread(thread.clone()), Rights::all())?,
            publish(self.arch, &domain, &domain, Object::System, Rights::all())?,
            publish(self.arch, &domain, &domain, Object::Memory(bundle), Rights::COPY | Rights::READ)?,
        ];
        debug_assert_eq!(
            handles,
            [StartHandles::DOMAIN, StartHandles::THREAD, StartHandles::SYSTEM, StartHandles::BUNDLE]
        );
        self.start(cpu, &thread)?;
        Ok(())
    }

    /// Makes a domain that has all memory, all CPUs and no parent.
    pub fn new_root_domain(&'static self) -> Result<Ref<Domain<A>, A>, Status> {
        let free = self.arch.frames().lock().free_pages();
        let account =
            Account::root(self.arch.heap(), free.saturating_mul(PAGE_SIZE)).map_err(|_| Status::OutOfMemory)?;
        let cpus = self.cpus();
        let cpu_mask = if cpus >= 64 { u64::MAX } else { (1 << cpus) - 1 };
        let limits = DomainLimits { max_priority: PRIORITIES - 1, cpu_mask };
        let space = DomainSpace::new(self, &account)?;
        let charge = crate::domain::charge_object::<A, Domain<A>>(&account)?;
        let domain = Domain::new(account, &limits, None, space, None, charge);
        Ref::<_, A>::try_new(self.arch.heap(), domain).map_err(|_| Status::OutOfMemory)
    }

    fn load_segment(
        &'static self,
        domain: &Ref<Domain<A>, A>,
        segment: &ProgramHeader,
        program: &[u8],
    ) -> Result<(), RootError> {
        let bad = RootError::BadSegment;
        let first = segment.p_vaddr & !(PAGE_SIZE - 1);
        let past = segment.p_vaddr.checked_add(segment.p_memsz).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let size = past.and_then(|past| past.checked_sub(first)).filter(|size| *size > 0).ok_or(bad)?;
        let skip = usize::try_from(segment.p_vaddr - first).map_err(|_| bad)?;
        if segment.p_filesz > segment.p_memsz || segment.p_flags & PF_R == 0 {
            return Err(bad);
        }
        let access = match segment.p_flags & (PF_W | PF_X) {
            0 => Rights::READ,
            PF_W => Rights::READ | Rights::WRITE,
            PF_X => Rights::READ | Rights::EXECUTE,
            _ => return Err(bad),
        };
        let from = usize::try_from(segment.p_offset).map_err(|_| bad)?;
        let length = usize::try_from(segment.p_filesz).map_err(|_| bad)?;
        let content = program.get(from..).and_then(|tail| tail.get(..length)).ok_or(bad)?;
        let memory = self.new_mapping(domain, first, size, access, &[])?;
        memory.write(self, skip as u64, content)?;
        Ok(())
    }

    /// Maps new memory with some content at its start.
    fn new_mapping(
        &'static self,
        domain: &Ref<Domain<A>, A>,
        start: u64,
        size: u64,
        access: Rights,
        content: &[u8],
    ) -> Result<Ref<Memory<A>, A>, Status> {
        let memory = Memory::new(self, domain, size, false)?;
        let memory = Ref::<_, A>::try_new(self.arch.heap(), memory).map_err(|_| Status::OutOfMemory)?;
        while memory.commit(self, ObjectOffset::new(0), ObjectOffset::new(size))? == Progress::More {}
        memory.write(self, 0, content)?;
        let end = start.checked_add(size).filter(|end| *end <= dragonfly_abi::USER_END).ok_or(Status::BadArgument)?;
        if start < dragonfly_abi::USER_START {
            return Err(Status::BadArgument);
        }
        let charge = domain.charge_object::<Derivation<A>>()?;
        let derivation = Derivation::new(Object::Memory(memory.clone()), domain.clone(), charge);
        let derivation = Ref::<_, A>::try_new(self.arch.heap(), derivation).map_err(|_| Status::OutOfMemory)?;
        let listed = domain.owned.lock().push_back(derivation.clone());
        debug_assert!(listed.is_ok());
        let range = MappedRange {
            start: SpaceAddr::new(start),
            end: SpaceAddr::new(end),
            offset: ObjectOffset::new(0),
            access,
        };
        let parent: Option<&Ref<Capability<A>, A>> = None;
        domain.space.map(Place::Mapping(domain.clone()), parent, &derivation, &memory, range)?;
        Ok(memory)
    }

    fn start_info(&self, plan: &RootPlan<'_>) -> [u8; size_of::<StartInfo>()] {
        let mut info = StartInfo {
            magic: StartInfo::MAGIC,
            abi_version: ABI_VERSION,
            cpus: u32::try_from(self.cpus()).unwrap_or(u32::MAX),
            heap_start: HEAP.0,
            heap_end: HEAP.1,
            tsc_hz: plan.tsc_hz,
            message_buffer: MESSAGE_BUFFER,
            bundle_size: plan.bundle.len() as u64,
            arguments_length: 0,
            reserved: 0,
            arguments: [0; 1024],
        };
        let text = plan.command_line.as_bytes();
        let length = text.len().min(info.arguments.len());
        info.arguments[..length].copy_from_slice(&text[..length]);
        info.arguments_length = u32::try_from(length).unwrap_or(0);
        zerocopy::transmute!(info)
    }
}
