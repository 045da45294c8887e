//! Exceptions (SDM 3A, table "Protected-Mode Exceptions and Interrupts"; APM 2, 8.2).

/// Vectors below this are the processor's own; external interrupts start here.
pub const FIRST_INTERRUPT_VECTOR: u8 = 32;

macro_rules! exceptions {
    ($($vector:literal $variant:ident $mnemonic:literal $error_code:literal $name:literal)*) => {
        /// An exception; its value is the vector.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Exception {
            $(#[doc = concat!($mnemonic, ", ", $name, ".")] $variant = $vector,)*
        }

        impl Exception {
            /// The exception of a vector, `None` if the vector is reserved or not the processor's own.
            #[must_use]
            pub const fn from_vector(vector: u8) -> Option<Self> {
                match vector {
                    $($vector => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its vector.
            #[must_use]
            pub const fn vector(self) -> u8 {
                self as u8
            }

            /// The manuals' short name, such as "#PF".
            #[must_use]
            pub const fn mnemonic(self) -> &'static str {
                match self { $(Self::$variant => $mnemonic,)* }
            }

            /// The manuals' name, such as "Page Fault".
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The processor pushes an error code after the return frame.
            #[must_use]
            pub const fn pushes_error_code(self) -> bool {
                match self { $(Self::$variant => $error_code,)* }
            }
        }
    };
}

exceptions! {
     0  DivideError             "#DE"   false   "Divide Error"
     1  Debug                   "#DB"   false   "Debug"
     2  Nmi                     "NMI"   false   "Non-Maskable Interrupt"
     3  Breakpoint              "#BP"   false   "Breakpoint"
     4  Overflow                "#OF"   false   "Overflow"
     5  BoundRange              "#BR"   false   "BOUND Range Exceeded"
     6  InvalidOpcode           "#UD"   false   "Invalid Opcode"
     7  DeviceNotAvailable      "#NM"   false   "Device Not Available"
     8  DoubleFault             "#DF"   true    "Double Fault"
    10  InvalidTss              "#TS"   true    "Invalid TSS"
    11  SegmentNotPresent       "#NP"   true    "Segment Not Present"
    12  StackSegmentFault       "#SS"   true    "Stack-Segment Fault"
    13  GeneralProtection       "#GP"   true    "General Protection"
    14  PageFault               "#PF"   true    "Page Fault"
    16  FloatingPointError      "#MF"   false   "x87 FPU Floating-Point Error"
    17  AlignmentCheck          "#AC"   true    "Alignment Check"
    18  MachineCheck            "#MC"   false   "Machine Check"
    19  SimdFloatingPoint       "#XM"   false   "SIMD Floating-Point Exception"
    20  Virtualization          "#VE"   false   "Virtualization Exception"
    21  ControlProtection       "#CP"   true    "Control Protection Exception"
    28  HypervisorInjection     "#HV"   false   "Hypervisor Injection Exception"
    29  VmmCommunication        "#VC"   true    "VMM Communication Exception"
    30  Security                "#SX"   true    "Security Exception"
}

flags! {
    /// Error code of a page fault (SDM 3A, "Page-Fault Exceptions"; APM 2, 8.4.2).
    PageFaultError: u64 {
        P        0  "The page was present and its rights were violated; else a page was not present."
        WR       1  "The access was a write."
        US       2  "The access was made at ring 3."
        RSVD     3  "A reserved bit of a paging-structure entry was set."
        ID       4  "The access was an instruction fetch."
        PK       5  "A protection key forbade the access."
        SS       6  "The access was one to a shadow stack."
        HLAT     7  "There was no translation in hypervisor-managed linear-address translation."
        SGX     15  "The access violated SGX's rules."
        RMP     31  "The access violated the reverse map table, on AMD only."
    }
}
