//! The checks, by subject.
#![expect(unsafe_code, reason = "what is checked is what instructions do")]

mod clock;
mod code;
mod cpuid;
mod debug;
mod exceptions;
mod interrupts;
mod io_apic;
mod memory;
mod mmio;
mod modes;
mod msr;
mod paging;
mod platform;
mod ports;
mod smp;
mod timers;
mod vector;

use dragonfly_guest_kit::{Check, Report, number_argument, smp as cpus};

type Case = (&'static str, fn() -> Check);

/// What each machine has.
const CASES: [Case; 55] = [
    ("exceptions_faults", exceptions::faults_have_their_vectors),
    ("exceptions_traps", exceptions::traps_go_on_behind_the_instruction),
    ("exceptions_segments", exceptions::segments_fault_with_their_selectors),
    ("exceptions_gates", exceptions::gates_fault_with_their_vectors),
    ("exceptions_stack_and_task", exceptions::the_task_state_and_the_stack),
    ("exceptions_double", exceptions::a_fault_in_a_fault_is_double),
    ("exceptions_compatibility", exceptions::overflow_and_bound_in_32_bit_code),
    ("exceptions_floating_point", exceptions::floating_point),
    ("exceptions_programs", exceptions::programs_may_not),
    ("exceptions_not_offered", exceptions::what_is_not_offered_is_undefined),
    ("system_call", exceptions::system_calls_enter_and_leave),
    ("paging_error_codes", paging::page_faults_say_why),
    ("paging_accessed_dirty", paging::accesses_are_noted),
    ("paging_write_protect", paging::write_protection_is_switchable),
    ("paging_large", paging::large_pages_translate),
    ("paging_supervisor", paging::supervisor_protection),
    ("debug_single_step", debug::each_instruction_is_a_step),
    ("debug_breakpoints", debug::breakpoints_break),
    ("interrupt_order", interrupts::the_highest_comes_first),
    ("interrupt_nesting", interrupts::what_is_in_service_holds_back_lower_ones),
    ("interrupt_task_priority", interrupts::the_task_priority_holds_back),
    ("interrupt_shadow", interrupts::shadows_hold_back_for_one_instruction),
    ("interrupt_halt", interrupts::an_interrupt_ends_a_halt),
    ("interrupt_command", interrupts::commands_to_this_cpu),
    ("interrupt_registers", interrupts::registers_refuse_what_they_do_not_have),
    ("nmi", interrupts::an_nmi_is_blocked_until_iret),
    ("timer_one_shot", timers::one_shot),
    ("timer_periodic", timers::periodic),
    ("timer_halt", timers::the_timer_ends_a_halt),
    ("io_apic_registers", io_apic::registers),
    ("io_apic_edge", io_apic::edges),
    ("io_apic_level", io_apic::levels),
    ("ports_widths", ports::each_width),
    ("ports_strings", ports::strings),
    ("ports_string_faults", ports::strings_fault_in_the_middle),
    ("mmio_moves", mmio::moves_of_each_width),
    ("mmio_arithmetic", mmio::arithmetic),
    ("mmio_strings", mmio::strings),
    ("mmio_unaligned", mmio::unaligned_and_across_pages),
    ("mmio_page_end", mmio::instructions_at_the_end_of_a_page),
    ("mmio_program", mmio::programs_reach_devices_that_are_mapped_for_them),
    ("cpuid", cpuid::answers_are_stable_and_agree),
    ("cpuid_xsave", cpuid::xsave_leaves_follow_the_registers),
    ("xsetbv", vector::xsetbv_has_rules),
    ("msr_unknown", msr::unknown_ones_fault),
    ("msr_kept", msr::values_are_kept),
    ("msr_refused", msr::bad_values_fault),
    ("msr_speculation", msr::speculation_is_limited_as_cpuid_says),
    ("msr_tsc", msr::the_counter_can_be_set),
    ("memory_first_touch", memory::each_page_is_zero_and_keeps_what_is_written),
    ("memory_edges", memory::accesses_across_large_pages),
    ("code_modified", code::code_that_changes_itself),
    ("acpi", platform::acpi_tables),
    ("pci", platform::configuration_space),
    ("rtc", platform::the_clock_of_the_board),
];

/// What machines of several CPUs have.
const SHARED: [Case; 10] = [
    ("smp_start", smp::each_cpu_starts),
    ("smp_start_all", smp::all_start_by_one_message),
    ("smp_interrupts", smp::interrupts_reach_whom_they_name),
    ("smp_nmi", smp::nmis_reach_others),
    ("smp_cpuid", smp::all_cpus_answer_alike),
    ("smp_patience", smp::who_waits_in_a_loop_leaves_others_their_timers),
    ("smp_work", smp::locked_instructions_are_indivisible),
    ("smp_tsc", clock::the_counter_never_goes_back),
    ("smp_code", code::code_that_another_cpu_changes),
    ("smp_init", smp::init_stops_a_cpu_until_it_is_started),
];

#[expect(unsafe_code, reason = "the kit calls the program by its name")]
#[unsafe(no_mangle)]
fn guest_main() {
    let mut report = Report::default();
    for _ in 0..number_argument("rounds", 1) {
        run(&mut report);
    }
    report.end();
}

fn run(report: &mut Report) {
    for (name, check) in CASES {
        report.check(name, check);
    }
    if timers::has_deadlines() {
        report.check("timer_deadline", timers::deadlines);
    } else {
        report.absent("timer_deadline", "TSC deadlines");
    }
    if cpuid::is_hypervisor_known() {
        report.check("hypercalls", platform::hypercalls);
        report.check("pvclock", clock::the_paravirtual_clock);
        report.check("tsc_frequency", clock::the_counter_has_the_frequency_that_is_told);
    } else {
        report.absent("hypercalls", "KVM's leaves of CPUID");
        report.absent("pvclock", "KVM's leaves of CPUID");
        report.absent("tsc_frequency", "KVM's leaves of CPUID");
    }
    if cpus::cpus() > 1 {
        for (name, check) in SHARED {
            report.check(name, check);
        }
    } else {
        report.absent("smp", "another CPU");
    }
    modes::run(report);
    report.check("vector_state", vector::state_is_kept_while_others_run);
}
