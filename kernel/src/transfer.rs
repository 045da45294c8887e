//! Handles on their way through a message.

use dragonfly_abi::{HandleTransfer, MESSAGE_HANDLES, Rights, Status};

use crate::arch::Arch;
use crate::capability::Capability;
use crate::domain::place_in_table;
use crate::thread::Thread;
use crate::{Kernel, Ref};

/// How many copies of a moved handle are passed on to its parent.
const MOVE_BUDGET: u32 = 1024;

/// Whether a receiver accepts so many handles.
pub fn is_welcome<A: Arch>(receiver: &Thread<A>, count: usize) -> bool {
    count <= MESSAGE_HANDLES.min(receiver.buffer.accepted_handles())
}

/// Puts copies of the sender's handles into the receiver's table: all, or none on an error.
///
/// # Errors
/// `Refused` if the receiver does not accept so many, `BadHandle` and `Denied` for what the sender named, and what
/// stands against a new handle in the receiver's table.
pub fn hand_over<A: Arch>(
    kernel: &'static Kernel<A>,
    from: &Thread<A>,
    to: &Thread<A>,
    count: usize,
) -> Result<(), Status> {
    if count == 0 {
        return Ok(());
    }
    if !is_welcome(to, count) {
        return Err(Status::Refused);
    }
    let mut sources: [Option<Ref<Capability<A>, A>>; MESSAGE_HANDLES] = [const { None }; MESSAGE_HANDLES];
    let mut given = [HandleTransfer::default(); MESSAGE_HANDLES];
    for index in 0..count.min(MESSAGE_HANDLES) {
        let wanted = from.buffer.handle(index);
        // The table is free again before anything is placed: the receiver's may be the same.
        let source = from.domain.table.lock().get(wanted.handle).cloned();
        let result = source.and_then(|source| {
            let is_move = wanted.rights & HandleTransfer::MOVE != 0;
            if !is_move {
                source.need(Rights::COPY)?;
            }
            let rights = source.rights & Rights::from_bits_truncate(wanted.rights);
            let object = source.object.share();
            let derivation = source.derivation.clone();
            let handle =
                place_in_table(kernel.arch, &to.domain, Some(&source), &derivation, object, rights, source.badge)?;
            if is_move {
                sources[index] = Some(source);
            }
            Ok(HandleTransfer { handle, rights: rights.bits() })
        });
        match result {
            Ok(transfer) => given[index] = transfer,
            Err(status) => {
                for undone in given.iter().take(index) {
                    let capability = to.domain.table.lock().get(undone.handle).cloned();
                    if let Ok(capability) = capability {
                        // It is new, so it has few children if any: what does not fit the budget stays with `to`.
                        let _ = kernel.remove(&capability, &mut { MOVE_BUDGET });
                    }
                }
                return Err(status);
            }
        }
    }
    for (index, (source, transfer)) in sources.iter().zip(given).enumerate().take(count) {
        to.buffer.set_handle(index, transfer);
        if let Some(source) = source {
            let _ = kernel.remove(source, &mut { MOVE_BUDGET });
        }
    }
    Ok(())
}
