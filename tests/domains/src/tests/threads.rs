//! The life of threads: how they are made, configured, started and ended, in every state.

use core::sync::atomic::Ordering;

use dragonfly_rt::sys::exit_thread;

use crate::light::{Words, shared};

mod ending;
mod every_state;
mod making;
mod moving;
mod running;

super::tests! {
    "a thread runs on the CPU it was made for and tells its figures" => running::a_thread_runs_where_it_should,
    "a thread goes on on the CPU that it moves to, and what it holds in registers with it" on 2 => moving::to_and_fro,
    "a thread moves to no CPU that its domain may not use" => moving::bad_cpus,
    "a thread that has a caller to answer does not move" on 2 => moving::while_serving,
    "a thread's timer moves with it" on 2 => moving::with_its_timer,
    "a thread's state goes from stopped to alive to ended" => running::states_of_a_thread,
    "a thread starts once and is configured before" => making::start_once,
    "a thread on no CPU, or on one that its domain may not use, is refused" => making::bad_cpus,
    "a priority above the domain's or above all is refused" => making::bad_priorities,
    "an entry or a stack outside the domain's addresses is refused" => making::bad_addresses,
    "a message buffer must be a page that is free" => making::bad_buffers,
    "a budget that is too short, too long or longer than its period is refused" => making::bad_budgets,
    "a thread that ends itself is gone from its domain" => ending::exit_by_itself,
    "a thread can destroy itself" => ending::destroy_itself,
    "a destroyed thread is gone whatever it was doing" within 120 => every_state::destroyed_in_every_state,
    "destroying a thread twice is no error" => ending::destroyed_twice,
    "the message buffer goes with its thread" => ending::buffer_goes,
    "a thousand threads made and ended leave the account as it was" within 120 => ending::many_threads,
    "the last thread's end is told, by whichever way it ends" => ending::death_is_told,
    "consumed time counts running and nothing else" => running::consumed_time,
}

/// Stores its CPU's work in word 0 and spins until word 1 is set.
extern "C" fn spinner(_: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    while shared(1).load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    exit_thread()
}
