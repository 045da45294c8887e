use std::collections::BTreeSet;

use dragonfly_hw::x86::apic;
use dragonfly_vapic::{Effect, LocalApic, Trigger};
use proptest::prelude::*;

use crate::{cases, deliver, enabled, read, write};

/// What a local APIC is, said as plainly as can be.
#[derive(Default)]
struct Model {
    requested: BTreeSet<u8>,
    in_service: BTreeSet<u8>,
    level: BTreeSet<u8>,
    task_priority: u8,
    is_off: bool,
}

impl Model {
    fn post(&mut self, vector: u8, trigger: Trigger) {
        if self.is_off || vector < 16 {
            return;
        }
        self.requested.insert(vector);
        match trigger {
            Trigger::Edge => self.level.remove(&vector),
            Trigger::Level => self.level.insert(vector),
        };
    }

    fn processor_priority(&self) -> u8 {
        let service = self.in_service.last().copied().unwrap_or(0);
        if self.task_priority >> 4 >= service >> 4 { self.task_priority } else { service & 0xf0 }
    }

    fn pending(&self) -> Option<u8> {
        self.requested.last().copied().filter(|vector| vector >> 4 > self.processor_priority() >> 4)
    }

    /// By its meaning: the highest task priority that would let something through, plus one.
    fn threshold(&self) -> Option<u8> {
        if self.pending().is_some() {
            return None;
        }
        (0..16).rev().find_map(|class| {
            let lowered = Self {
                task_priority: class << 4,
                requested: self.requested.clone(),
                in_service: self.in_service.clone(),
                ..Self::default()
            };
            lowered.pending().map(|_| class + 1)
        })
    }

    fn end(&mut self) -> Effect {
        match self.in_service.pop_last() {
            Some(vector) => Effect::Eoi { vector, is_level: self.level.contains(&vector) },
            None => Effect::None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Post(u8, bool),
    SendSelf(u8),
    Deliver,
    End,
    SetTaskPriority(u8),
    Threshold,
    Switch(bool),
    Reset,
    Nmi,
    TakeRequests,
}

fn step() -> impl Strategy<Value = Step> {
    // Few vectors, so that they meet, at the edges of words and classes.
    let vector = prop_oneof![
        4 => prop::sample::select(vec![0x0f, 0x10, 0x3f, 0x40, 0x41, 0x4f, 0x50, 0x7f, 0x80, 0xbf, 0xc0, 0xff]),
        1 => any::<u8>(),
    ];
    prop_oneof![
        6 => (vector.clone(), any::<bool>()).prop_map(|(vector, is_level)| Step::Post(vector, is_level)),
        3 => vector.prop_map(Step::SendSelf),
        8 => Just(Step::Deliver),
        6 => Just(Step::End),
        3 => (0u8..7, any::<u8>()).prop_map(|(shift, priority)| Step::SetTaskPriority(priority >> shift)),
        3 => Just(Step::Threshold),
        1 => any::<bool>().prop_map(Step::Switch),
        1 => Just(Step::Reset),
        1 => Just(Step::Nmi),
        2 => Just(Step::TakeRequests),
    ]
}

fn register_words(set: &BTreeSet<u8>) -> [u64; 8] {
    core::array::from_fn(|word| (0..32).filter(|bit| set.contains(&(word as u8 * 32 + bit))).map(|bit| 1 << bit).sum())
}

fn read_words(apic: &LocalApic, set: u32) -> [u64; 8] {
    core::array::from_fn(|word| read(apic, set + word as u32 * 16))
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_local_apic_does_what_the_model_does(steps in prop::collection::vec(step(), 1..100)) {
        let apic = enabled(0);
        let mut model = Model::default();
        let mut nmi = false;
        for step in steps {
            match step {
                Step::Post(vector, is_level) => {
                    let trigger = if is_level { Trigger::Level } else { Trigger::Edge };
                    apic.post(vector, trigger);
                    model.post(vector, trigger);
                }
                Step::SendSelf(vector) => {
                    apic.send_self(vector);
                    model.post(vector, Trigger::Edge);
                }
                Step::Deliver => {
                    let pending = apic.pending();
                    prop_assert_eq!(pending, model.pending());
                    if let Some(vector) = pending {
                        deliver(&apic, vector);
                        model.requested.remove(&vector);
                        model.in_service.insert(vector);
                    }
                }
                Step::End => prop_assert_eq!(apic.end_of_interrupt(), model.end()),
                Step::SetTaskPriority(priority) => {
                    apic.set_task_priority(priority);
                    model.task_priority = priority;
                }
                Step::Threshold => prop_assert_eq!(apic.priority_threshold(), model.threshold()),
                Step::Switch(is_off) => {
                    write(&apic, apic::SVR, if is_off { 0xff } else { 0x1ff });
                    model.is_off = is_off;
                }
                Step::Reset => {
                    apic.reset();
                    model = Model { is_off: true, ..Model::default() };
                }
                Step::Nmi => {
                    prop_assert!(apic.post_nmi() || nmi);
                    nmi = true;
                }
                Step::TakeRequests => {
                    prop_assert_eq!(apic.take_requests().nmi(), nmi);
                    nmi = false;
                }
            }
        }
        prop_assert_eq!(apic.processor_priority(), model.processor_priority());
        prop_assert_eq!(read_words(&apic, apic::IRR), register_words(&model.requested));
        prop_assert_eq!(read_words(&apic, apic::ISR), register_words(&model.in_service));
        prop_assert_eq!(read_words(&apic, apic::TMR), register_words(&model.level));
    }
}
