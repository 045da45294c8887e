//! System call numbers.

/// A system call. `docs/abi.md` gives arguments, units, rights and statuses of each.
///
/// Arguments are written `name: unit`; a missing one is ignored. Results are the words after the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Call {
    /// `()`: does nothing; measures the cost of a call.
    Nop = 0,

    /// `(gate, tag, w0, w1, w2, w3) -> (0, tag, w0, w1, w2, w3)`: sends a message and waits for the reply.
    Call = 1,
    /// `(0, tag, w0, w1, w2, w3)`: answers the caller of the last message received.
    Reply = 2,
    /// `(gate, timeout: ns) -> (badge, tag, w0, w1, w2, w3)`: waits for a message.
    Receive = 3,
    /// `(gate, tag, w0, w1, w2, w3) -> (badge, tag, w0, w1, w2, w3)`: reply, then receive.
    ReplyReceive = 4,

    /// `(source, target domain, rights, badge) -> handle`: puts a copy into a domain's table.
    HandleCopy = 8,
    /// `(handle)`: gives the handle up. What was derived from it stays.
    HandleClose = 9,
    /// `(handle)`: takes back everything derived from the handle, mappings included; the handle itself stays.
    HandleRevoke = 10,
    /// `(handle) -> (type, rights, badge)`.
    HandleInfo = 11,

    /// `(parent, quota: bytes, maximum priority, CPU mask, death notification or 0, bits) -> handle`.
    DomainCreate = 16,
    /// `(domain)`: ends its threads and takes back everything it owned, child domains included.
    DomainDestroy = 17,
    /// `(domain) -> (quota: bytes, used: bytes, threads, handles)`.
    DomainInfo = 18,

    /// `(domain, CPU | priority << 32, entry, stack, message buffer address, argument) -> handle`: a stopped thread.
    ThreadCreate = 24,
    /// `(thread, budget: ns, period: ns, fault gate or 0, badge, flags)`: before the thread is started.
    ThreadConfigure = 25,
    /// `(thread)`: lets a stopped thread run for the first time.
    ThreadStart = 26,
    /// `(thread)`: ends another thread; ends when it has left its CPU.
    ThreadDestroy = 27,
    /// `()`: ends the calling thread.
    ThreadExit = 28,
    /// `()`: lets other threads of the same priority run.
    ThreadYield = 29,
    /// `(thread) -> (state, consumed: ns, CPU, priority)`.
    ThreadInfo = 30,
    /// `(CPU)`: the calling thread goes on there.
    ThreadMove = 31,

    /// `() -> handle`.
    NotificationCreate = 32,
    /// `(notification, bits)`: sets bits and wakes a waiter. Through a badged handle the bits are the badge.
    NotificationSignal = 33,
    /// `(notification, timeout: ns) -> bits`: waits until some bit is set; takes all.
    NotificationWait = 34,
    /// `(notification, gate)`: receivers of the gate also get the notification's bits, as a message.
    NotificationBind = 35,
    /// `(notification, deadline: ns of ClockNow or FOREVER, bits)`: arms or disarms the calling thread's timer.
    TimerArm = 36,

    /// `() -> handle`.
    GateCreate = 40,

    /// `(size: bytes, flags) -> handle`: an empty memory object; bit 0 of the flags: committed on demand.
    MemoryCreate = 48,
    /// `(memory, offset: bytes, size: bytes)`: gives frames to the range.
    MemoryCommit = 49,
    /// `(memory, domain, address, offset: bytes, size: bytes, rights)`: maps a part into a domain.
    MemoryMap = 50,
    /// `(domain, address)`: removes the mapping that starts there.
    MemoryUnmap = 51,
    /// `(memory) -> (size: bytes, committed: bytes, mappings)`.
    MemoryInfo = 52,
    /// `(system, memory, offset: bytes) -> (physical address, bytes)`: where frames are, for a device.
    MemoryAddress = 53,

    /// `(system, first port, count) -> handle`: a range of I/O ports.
    DevicePorts = 56,
    /// `(system, physical address, size: bytes) -> memory handle`: device memory, not cached.
    DeviceMemory = 57,
    /// `(system, interrupt number, flags) -> handle`: an interrupt line; bit 0: level, bit 1: active low.
    DeviceInterrupt = 58,
    /// `(ports, port, width: bytes) -> value`.
    PortRead = 59,
    /// `(ports, port, width: bytes, value)`.
    PortWrite = 60,
    /// `(interrupt, notification, bits, CPU) -> (address, data)`: the interrupt sets the bits; notification 0 unbinds. The
    /// words are what a device writes for a message-signalled interrupt, and 0 for a line.
    InterruptBind = 61,
    /// `(interrupt)`: lets the next one come.
    InterruptAcknowledge = 62,
    /// `(system) -> handle`: a message-signalled interrupt.
    DeviceMessage = 63,

    /// `(system, item, argument) -> (value, value, value)`: see [`SystemItem`].
    SystemInfo = 64,
    /// `(system, length: bytes)`: writes text from the message buffer to the kernel's log.
    LogWrite = 65,
    /// `() -> ns`: time since the kernel started.
    ClockNow = 66,

    /// `() -> handle`: a virtual machine without memory or vCPUs.
    VmCreate = 72,
    /// `(vm, address | kind << 48, width: bytes or 0, notification or 0, bits)`: guest writes to the address signal;
    /// notification 0 takes the doorbell away. See [`DoorbellKind`](crate::guest::DoorbellKind).
    VmDoorbell = 73,
    /// `(vm, address, data)`: sends a message-signalled interrupt.
    VmInterrupt = 74,
    /// `(vm, number, state page address) -> handle`: maps the vCPU's state page into the calling domain.
    VcpuCreate = 75,
    /// `(vcpu, flags) -> (reason | instruction length << 32, a, b, c)`: runs the guest until it needs the caller. See
    /// [`ExitReason`](crate::guest::ExitReason) and [`RunFlags`](crate::guest::RunFlags).
    VcpuRun = 76,
    /// `(vcpu)`: lets the one who runs it come back, now or at the next `VcpuRun`.
    VcpuKick = 77,
    /// `(vcpu, groups)`: brings register groups of the state page up to date.
    VcpuSync = 78,
    /// `(vcpu, leaf | sub-leaf << 32, eax | ebx << 32, ecx | edx << 32, flags)`: an entry of the CPUID table; bit 0 of the
    /// flags: the sub-leaf counts.
    VcpuCpuid = 79,
    /// `(vcpu, register, value, policy)`: how an MSR is handled. See [`MsrPolicy`](crate::guest::MsrPolicy).
    VcpuMsr = 80,
    /// `(vcpu, offset, value, is write) -> value`: a 32-bit access to the local APIC's register page.
    VcpuApic = 81,
    /// `(notification, vm or 0, address, data)`: signals send this message instead of setting bits; 0 ends that.
    NotificationRoute = 82,
    /// `(vcpu, memory or 0, offset, kind)`: where kernel and guest share a record. See
    /// [`RecordKind`](crate::guest::RecordKind).
    VcpuRecord = 83,
    /// `(vm, is on)`: 1 starts, 0 ends the log of pages to which the guest writes.
    VmDirtyLog = 84,
    /// `(vm, start, end) -> (first page, pages, next)`: takes pages that were written out of the log. Those from the
    /// first on come as a bitmap in the message buffer, [`DIRTY_WORDS`](crate::guest::DIRTY_WORDS) long.
    VmDirtyPages = 85,
    /// `(vcpu, frequency: Hz) -> ratio to the host's`: how fast its time-stamp counter runs.
    VcpuTscFrequency = 86,
}

impl Call {
    /// Every call.
    pub const ALL: [Self; 58] = [
        Self::Nop,
        Self::Call,
        Self::Reply,
        Self::Receive,
        Self::ReplyReceive,
        Self::HandleCopy,
        Self::HandleClose,
        Self::HandleRevoke,
        Self::HandleInfo,
        Self::DomainCreate,
        Self::DomainDestroy,
        Self::DomainInfo,
        Self::ThreadCreate,
        Self::ThreadConfigure,
        Self::ThreadStart,
        Self::ThreadDestroy,
        Self::ThreadExit,
        Self::ThreadYield,
        Self::ThreadInfo,
        Self::ThreadMove,
        Self::NotificationCreate,
        Self::NotificationSignal,
        Self::NotificationWait,
        Self::NotificationBind,
        Self::TimerArm,
        Self::GateCreate,
        Self::MemoryCreate,
        Self::MemoryCommit,
        Self::MemoryMap,
        Self::MemoryUnmap,
        Self::MemoryInfo,
        Self::MemoryAddress,
        Self::DevicePorts,
        Self::DeviceMemory,
        Self::DeviceInterrupt,
        Self::PortRead,
        Self::PortWrite,
        Self::InterruptBind,
        Self::InterruptAcknowledge,
        Self::DeviceMessage,
        Self::SystemInfo,
        Self::LogWrite,
        Self::ClockNow,
        Self::VmCreate,
        Self::VmDoorbell,
        Self::VmInterrupt,
        Self::VcpuCreate,
        Self::VcpuRun,
        Self::VcpuKick,
        Self::VcpuSync,
        Self::VcpuCpuid,
        Self::VcpuMsr,
        Self::VcpuApic,
        Self::NotificationRoute,
        Self::VcpuRecord,
        Self::VmDirtyLog,
        Self::VmDirtyPages,
        Self::VcpuTscFrequency,
    ];

    /// The call with this number, if there is one.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        BY_NUMBER.get(usize::try_from(raw).ok()?).copied().flatten()
    }
}

/// One more than the highest number of a call.
const NUMBERS: usize = Call::VcpuTscFrequency as usize + 1;

/// The calls by their numbers.
const BY_NUMBER: [Option<Call>; NUMBERS] = {
    let mut table = [None; NUMBERS];
    let mut index = 0;
    while index < Call::ALL.len() {
        let call = Call::ALL[index];
        table[call as usize] = Some(call);
        index += 1;
    }
    table
};

/// What [`Call::SystemInfo`] can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SystemItem {
    /// `(free, total)` memory in 4 KiB pages.
    FreePages = 0,
    /// `(number of CPUs)`.
    Cpus = 1,
    /// `(frequency of the time-stamp counter in Hz)`.
    TscFrequency = 2,
    /// `(physical address of the ACPI RSDP or 0)`.
    AcpiRsdp = 3,
    /// Walks the live page tables of the caller's address space:
    /// `(leaves seen, leaves writable and executable, leaves of the kernel's half that a domain may access)`.
    /// The argument is the address to go on from; the fourth word is the address for the next call, 0 at the end.
    AuditPageTables = 4,
    /// `(size of the bundle in bytes)`.
    BundleSize = 5,
    /// Eight bytes of the kernel's command line, from the offset given as argument, zero past its end.
    CommandLine = 6,
    /// `(what runs virtual machines)`: a [`Virtualisation`](crate::guest::Virtualisation).
    Virtualisation = 7,
    /// `(physical address, segment group, first bus, last bus)`: where the configuration registers of PCI functions are
    /// in memory. The argument counts such ranges from 0; past the last one all is 0. The address is that of bus 0, even
    /// where the range begins with another.
    PciSegment = 8,
}

impl SystemItem {
    /// The item with this number, if there is one.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        Some(match raw {
            0 => Self::FreePages,
            1 => Self::Cpus,
            2 => Self::TscFrequency,
            3 => Self::AcpiRsdp,
            4 => Self::AuditPageTables,
            5 => Self::BundleSize,
            6 => Self::CommandLine,
            7 => Self::Virtualisation,
            8 => Self::PciSegment,
            _ => return None,
        })
    }
}
