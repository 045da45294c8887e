//! The tree of a memory object's capabilities, in handle tables and address spaces of several domains, against a model.

use std::collections::BTreeMap;

use dragonfly_abi::{Call, Rights, Status};
use proptest::prelude::*;

use super::world::{Actor, Home, World, word};

const DOMAINS: usize = 3;
const SIZE: u64 = 0x2000;

/// A step; numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Copy { source: u16, to: u8, rights: u8 },
    Close(u16),
    Revoke(u16),
    Map { source: u16, to: u8, at: u8 },
    Unmap(u16),
    Destroy(u8),
}

/// Where a capability of the model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Handle { domain: usize, handle: u64 },
    Mapping { domain: usize, address: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: Option<u32>,
    place: Place,
    rights: Rights,
}

/// Capabilities by number, each with the number of what it was derived from.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<u32, Node>,
    next: u32,
}

impl Model {
    fn add(&mut self, parent: Option<u32>, place: Place, rights: Rights) {
        self.nodes.insert(self.next, Node { parent, place, rights });
        self.next += 1;
    }

    fn remove(&mut self, number: u32) {
        let parent = self.nodes.remove(&number).and_then(|node| node.parent);
        self.nodes.values_mut().filter(|node| node.parent == Some(number)).for_each(|node| node.parent = parent);
    }

    fn revoke(&mut self, number: u32) {
        let children = |nodes: &BTreeMap<u32, Node>, of: u32| -> Vec<u32> {
            nodes.iter().filter(|(_, node)| node.parent == Some(of)).map(|(child, _)| *child).collect()
        };
        for child in children(&self.nodes, number) {
            self.revoke(child);
            self.nodes.remove(&child);
        }
    }

    fn is_in(place: Place, domain: usize) -> bool {
        match place {
            Place::Handle { domain: holder, .. } | Place::Mapping { domain: holder, .. } => holder == domain,
        }
    }

    /// One of those that a choice is to be made among.
    fn pick(&self, choice: u16, wanted: fn(&Place) -> bool) -> Option<(u32, Node)> {
        let nodes: Vec<_> = self.nodes.iter().filter(|(_, node)| wanted(&node.place)).collect();
        nodes.get(usize::from(choice) % nodes.len().max(1)).map(|(number, node)| (**number, **node))
    }

    fn handle(&self, choice: u16) -> Option<(u32, Node, usize, u64)> {
        let (number, node) = self.pick(choice, |place| matches!(place, Place::Handle { .. }))?;
        let Place::Handle { domain, handle } = node.place else { return None };
        Some((number, node, domain, handle))
    }
}

struct Scene {
    world: World,
    domains: Vec<Option<(Home, Actor)>>,
    /// `handles[a][b]`: domain a's handle to domain b.
    handles: Vec<Vec<u64>>,
    model: Model,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new(DOMAINS);
        let domains: Vec<_> = (0..DOMAINS).map(|cpu| (world.home(2 << 20), cpu)).collect();
        let domains: Vec<_> = domains.into_iter().map(|(home, cpu)| (home, world.thread(&home, cpu, 10))).collect();
        let grant = |world: &mut World, of: &Home, to: &Home| world.grant(of.handle, to, Rights::all(), 0);
        let handles = domains
            .iter()
            .map(|(holder, _)| domains.iter().map(|(home, _)| grant(&mut world, home, holder)).collect())
            .collect();
        // The keeper owns the objects and gives its handles away, so that no domain's end takes them.
        let mut model = Model::default();
        let memory = world.keep(Call::MemoryCreate, &[SIZE, 1]);
        let rights = Rights::COPY | Rights::READ | Rights::WRITE | Rights::EXECUTE;
        model.add(None, Place::Handle { domain: DOMAINS, handle: memory }, rights);
        for (domain, (home, _)) in domains.iter().enumerate() {
            let handle = world.grant(memory, home, rights, 0);
            model.add(Some(0), Place::Handle { domain, handle }, rights);
        }
        Self { world, domains: domains.into_iter().map(Some).collect(), handles, model }
    }

    fn act(&mut self, domain: usize, call: Call, words: &[u64]) -> (Status, u64) {
        if domain == DOMAINS {
            return match call {
                Call::HandleRevoke => (self.world.insist(call, words), 0),
                _ => {
                    let (status, words) = self.world.ask(call, words);
                    (status, words[0])
                }
            };
        }
        let actor = self.domains[domain].as_ref().expect("a living domain").1;
        if matches!(call, Call::HandleRevoke | Call::MemoryUnmap | Call::HandleClose) {
            return (self.world.complete(&actor, call, words), 0);
        }
        let (status, words) = self.world.act(&actor, call, words).expect("it goes on");
        (status, words[0])
    }

    /// The handle of a domain, or of the keeper, to another domain that is still there.
    fn handle_to(&self, from: usize, to: u8) -> Option<(usize, u64)> {
        let to = usize::from(to) % DOMAINS;
        let home = self.domains[to].as_ref()?.0;
        Some((to, if from == DOMAINS { home.handle } else { self.handles[from][to] }))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Copy { source, to, rights } => {
                let Some((number, node, from, handle)) = self.model.handle(source) else { return };
                let Some((to, target)) = self.handle_to(from, to) else { return };
                let wanted = Rights::from_bits_truncate(u32::from(rights) | 1);
                let (status, copy) = self.act(from, Call::HandleCopy, &[handle, target, word(wanted), 0]);
                assert_eq!(status, Status::Ok);
                let place = Place::Handle { domain: to, handle: copy };
                self.model.add(Some(number), place, node.rights & wanted);
            }
            Step::Close(choice) => {
                let Some((number, _, from, handle)) = self.model.handle(choice) else { return };
                if from != DOMAINS {
                    assert_eq!(self.act(from, Call::HandleClose, &[handle]).0, Status::Ok);
                    self.model.remove(number);
                }
            }
            Step::Revoke(choice) => {
                let Some((number, _, from, handle)) = self.model.handle(choice) else { return };
                assert_eq!(self.act(from, Call::HandleRevoke, &[handle]).0, Status::Ok);
                self.model.revoke(number);
            }
            Step::Map { source, to, at } => {
                let Some((number, node, from, handle)) = self.model.handle(source) else { return };
                let Some((to, target)) = self.handle_to(from, to) else { return };
                let address = 0x10_0000 + u64::from(at % 8) * SIZE;
                let place = Place::Mapping { domain: to, address };
                let words = [handle, target, address, 0, SIZE, word(Rights::READ)];
                let expected = match () {
                    () if !node.rights.contains(Rights::READ) => Status::Denied,
                    () if self.model.nodes.values().any(|node| node.place == place) => Status::Overlap,
                    () => Status::Ok,
                };
                assert_eq!(self.act(from, Call::MemoryMap, &words).0, expected);
                if expected == Status::Ok {
                    self.model.add(Some(number), place, Rights::READ);
                }
            }
            Step::Unmap(choice) => {
                let picked = self.model.pick(choice, |place| matches!(place, Place::Mapping { .. }));
                let Some((number, Node { place: Place::Mapping { domain, address }, .. })) = picked else { return };
                let own = self.handles[domain][domain];
                assert_eq!(self.act(domain, Call::MemoryUnmap, &[own, address]).0, Status::Ok);
                self.model.remove(number);
            }
            Step::Destroy(domain) => {
                let domain = usize::from(domain) % DOMAINS;
                let Some((home, _)) = self.domains[domain].take() else { return };
                assert_eq!(self.world.insist(Call::DomainDestroy, &[home.handle]), Status::Ok);
                let gone: Vec<_> =
                    self.model.nodes.iter().filter(|(_, node)| Model::is_in(node.place, domain)).collect();
                for number in gone.into_iter().map(|(number, _)| *number).collect::<Vec<_>>() {
                    self.model.remove(number);
                }
            }
        }
    }

    /// What the domains have is what the model says. The audit compares the tree's shape with the places.
    fn compare(&self) {
        for (number, node) in &self.model.nodes {
            let capability = match node.place {
                Place::Handle { domain, handle } => {
                    let home = self.domains.get(domain).map_or(self.world.root, |home| home.expect("it lives").0);
                    self.world.find(&home, handle)
                }
                Place::Mapping { domain, address } => {
                    let home = self.domains[domain].expect("it lives").0;
                    let mappings = self.world.domain_of(&home).space.mappings();
                    let starts = |start: u64| start == address;
                    mappings.into_iter().find(|mapping| mapping.range.is_some_and(|range| starts(range.start.as_u64())))
                }
            };
            let capability = capability.unwrap_or_else(|| panic!("{number} {node:?} is missing"));
            assert_eq!(capability.rights, node.rights);
        }
        let memory = &self.model.nodes[&0];
        let Place::Handle { handle, .. } = memory.place else { panic!("the keeper's handle") };
        let count = self.world.capability(&self.world.root, handle).derivation.state.lock().count;
        assert_eq!(count, self.model.nodes.len() as u64);
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u16>(), any::<u8>(), any::<u8>())
            .prop_map(|(source, to, rights)| Step::Copy { source, to, rights: if rights % 4 == 0 { rights } else { rights | 2 } }),
        3 => any::<u16>().prop_map(Step::Close),
        2 => any::<u16>().prop_map(Step::Revoke),
        4 => (any::<u16>(), any::<u8>(), any::<u8>()).prop_map(|(source, to, at)| Step::Map { source, to, at }),
        2 => any::<u16>().prop_map(Step::Unmap),
        1 => any::<u8>().prop_map(Step::Destroy),
    ]
}

proptest! {
    #![proptest_config(super::config(128))]

    #[test]
    fn copies_and_mappings_come_and_go_as_in_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut scene = Scene::new();
        for step in steps {
            scene.step(step);
            scene.compare();
        }
        scene.world.finish();
    }
}
