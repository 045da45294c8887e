//! Memory objects and address spaces against a model: maps of pages.

use std::collections::{BTreeMap, BTreeSet};

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status};
use dragonfly_memory::{HostPhys, UserVirt};
use proptest::prelude::*;

use super::world::{Action, Actor, Home, World, word};
use crate::thread::Phase;

/// Domains, each with a thread on a CPU of its own.
const DOMAINS: usize = 2;
/// Where mappings go: a few pages from each of these on.
const BASE: u64 = 0x4000_0000;
const LARGE_PAGE: u64 = 2 << 20;
/// Pages that all objects of a domain may have together.
const MOST_PAGES: u64 = 1800;

const ACCESSES: [Rights; 3] = [Rights::READ, Rights::READ.union(Rights::WRITE), Rights::READ.union(Rights::EXECUTE)];

/// A step; numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create { domain: usize, pages: u64, is_on_demand: bool },
    Share(usize),
    Commit { object: usize, first: u64, pages: u64 },
    Map { object: usize, from: usize, to: usize, slot: u64, page: u64, first: u64, pages: u64, access: usize },
    Unmap { mapping: usize, is_missed: bool },
    Touch { mapping: usize, page: u64, access: usize, value: u64 },
    Close { object: usize, domain: usize },
    Revoke(usize),
}

#[derive(Debug)]
struct Object {
    owner: usize,
    pages: u64,
    is_on_demand: bool,
    /// Each domain's handle.
    handles: [Option<u64>; DOMAINS],
    committed: BTreeSet<u64>,
    /// The first word of each page that was written.
    content: BTreeMap<u64, u64>,
    /// Where devices find those pages: for good.
    addresses: BTreeMap<u64, HostPhys>,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    object: u32,
    first: u64,
    pages: u64,
    access: Rights,
}

/// What ought to be.
#[derive(Default)]
struct Model {
    objects: BTreeMap<u32, Object>,
    /// By domain and address.
    mappings: BTreeMap<(usize, u64), Mapping>,
    next: u32,
}

impl Model {
    fn object(&self, choice: usize) -> Option<u32> {
        self.objects.keys().nth(choice % self.objects.len().max(1)).copied()
    }

    fn mapping(&self, choice: usize) -> Option<((usize, u64), Mapping)> {
        self.mappings.iter().nth(choice % self.mappings.len().max(1)).map(|(place, mapping)| (*place, *mapping))
    }

    fn count(&self, object: u32) -> u64 {
        self.mappings.values().filter(|mapping| mapping.object == object).count() as u64
    }

    /// Objects go with their last handle or mapping.
    fn sweep(&mut self) {
        let mapped: BTreeSet<_> = self.mappings.values().map(|mapping| mapping.object).collect();
        self.objects.retain(|number, object| object.handles.iter().any(Option::is_some) || mapped.contains(number));
    }
}

struct Scene {
    world: World,
    homes: Vec<Home>,
    actors: Vec<Actor>,
    /// `spaces[a][b]`: domain a's handle to domain b.
    spaces: Vec<Vec<u64>>,
    model: Model,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new(DOMAINS);
        let homes: Vec<_> = (0..DOMAINS).map(|_| world.home(9 << 20)).collect();
        let actors = homes.iter().enumerate().map(|(cpu, home)| world.thread(home, cpu, 10)).collect();
        let spaces = homes
            .iter()
            .map(|holder| homes.iter().map(|home| world.grant(home.handle, holder, Rights::all(), 0)).collect())
            .collect();
        Self { world, homes, actors, spaces, model: Model::default() }
    }

    fn call(&mut self, domain: usize, call: Call, words: &[u64]) -> Status {
        let actor = self.actors[domain];
        self.world.complete(&actor, call, words)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Create { domain, pages, is_on_demand } => self.create(domain, pages, is_on_demand),
            Step::Share(choice) => self.share(choice),
            Step::Commit { object, first, pages } => self.commit(object, first, pages),
            Step::Map { .. } => self.map(step),
            Step::Unmap { mapping, is_missed } => {
                let Some(((domain, at), _)) = self.model.mapping(mapping) else { return };
                if is_missed {
                    let beside = [self.spaces[domain][domain], at + PAGE_SIZE];
                    let is_there = self.model.mappings.contains_key(&(domain, at + PAGE_SIZE));
                    if !is_there {
                        assert_eq!(self.call(domain, Call::MemoryUnmap, &beside), Status::NotMapped);
                    }
                    return;
                }
                assert_eq!(self.call(domain, Call::MemoryUnmap, &[self.spaces[domain][domain], at]), Status::Ok);
                self.model.mappings.remove(&(domain, at));
            }
            Step::Touch { mapping, page, access, value } => self.touch(mapping, page, access, value),
            Step::Close { object, domain } => {
                let Some(number) = self.model.object(object) else { return };
                let handle = self.model.objects.get_mut(&number).and_then(|object| object.handles[domain].take());
                if let Some(handle) = handle {
                    assert_eq!(self.call(domain, Call::HandleClose, &[handle]), Status::Ok);
                }
            }
            Step::Revoke(choice) => {
                let Some(number) = self.model.object(choice) else { return };
                let object = self.model.objects.get_mut(&number).expect("an object");
                let owner = object.owner;
                let Some(handle) = object.handles[owner] else { return };
                object.handles = std::array::from_fn(|domain| (domain == owner).then_some(handle));
                assert_eq!(self.call(owner, Call::HandleRevoke, &[handle]), Status::Ok);
                self.model.mappings.retain(|_, mapping| mapping.object != number);
            }
        }
        self.model.sweep();
        self.compare();
        self.compare_addresses();
    }

    fn create(&mut self, domain: usize, pages: u64, is_on_demand: bool) {
        let used: u64 =
            self.model.objects.values().filter(|object| object.owner == domain).map(|object| object.pages).sum();
        if used + pages > MOST_PAGES {
            return;
        }
        let words = [pages * PAGE_SIZE, u64::from(is_on_demand)];
        let handle = self.world.get(&self.actors[domain].clone(), Call::MemoryCreate, &words);
        let handles = std::array::from_fn(|holder| (holder == domain).then_some(handle));
        let object = Object {
            owner: domain,
            pages,
            is_on_demand,
            handles,
            committed: BTreeSet::new(),
            content: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        self.model.objects.insert(self.model.next, object);
        self.model.next += 1;
    }

    fn share(&mut self, choice: usize) {
        let Some(number) = self.model.object(choice) else { return };
        let object = &self.model.objects[&number];
        let (from, to) = (object.owner, 1 - object.owner);
        let (Some(handle), None) = (object.handles[from], object.handles[to]) else { return };
        let words = [handle, self.spaces[from][to], word(Rights::all()), 0];
        let copy = self.world.get(&self.actors[from].clone(), Call::HandleCopy, &words);
        self.model.objects.get_mut(&number).expect("an object").handles[to] = Some(copy);
    }

    fn commit(&mut self, choice: usize, first: u64, pages: u64) {
        let Some(number) = self.model.object(choice) else { return };
        let object = self.model.objects.get_mut(&number).expect("an object");
        let Some(domain) = object.handles.iter().position(Option::is_some) else { return };
        let handle = object.handles[domain].expect("a handle");
        let is_inside = pages != 0 && first + pages <= object.pages;
        if is_inside {
            object.committed.extend(first..first + pages);
        }
        let status = self.call(domain, Call::MemoryCommit, &[handle, first * PAGE_SIZE, pages * PAGE_SIZE]);
        assert_eq!(status, if is_inside { Status::Ok } else { Status::BadArgument });
    }

    fn map(&mut self, step: Step) {
        let Step::Map { object, from, to, slot, page, first, pages, access } = step else { return };
        let Some(number) = self.model.object(object) else { return };
        let object = &self.model.objects[&number];
        let Some(handle) = object.handles[from] else { return };
        let at = BASE + slot * LARGE_PAGE + page * PAGE_SIZE;
        let end = at + pages * PAGE_SIZE;
        let is_inside = pages != 0 && first + pages <= object.pages;
        let overlaps = |(place, other): (&(usize, u64), &Mapping)| {
            place.0 == to && place.1 < end && at < place.1 + other.pages * PAGE_SIZE
        };
        let wanted = match self.model.mappings.iter().any(overlaps) {
            _ if !is_inside => Status::BadArgument,
            true => Status::Overlap,
            false => Status::Ok,
        };
        let access = ACCESSES[access];
        let words = [handle, self.spaces[from][to], at, first * PAGE_SIZE, pages * PAGE_SIZE, word(access)];
        assert_eq!(self.call(from, Call::MemoryMap, &words), wanted);
        if wanted == Status::Ok {
            self.model.mappings.insert((to, at), Mapping { object: number, first, pages, access });
        }
    }

    /// An access to a page of a mapping, or to the one behind it.
    fn touch(&mut self, choice: usize, page: u64, access: usize, value: u64) {
        let Some(((domain, at), mapping)) = self.model.mapping(choice) else { return };
        let page = page % (mapping.pages + 1);
        let access = [Rights::READ, Rights::WRITE, Rights::EXECUTE][access];
        let address = UserVirt::new(at + page * PAGE_SIZE);
        self.world.perform(domain, Action::Touch(address, access));
        let object = self.model.objects.get_mut(&mapping.object).expect("an object");
        let (index, is_inside) = (mapping.first + page, page < mapping.pages);
        let next = self.model.mappings.contains_key(&(domain, address.as_u64()));
        if !is_inside && next {
            // It belongs to the mapping that follows.
            return self.replace_if_ended(domain);
        }
        let has_frame = object.is_on_demand || object.committed.contains(&index);
        if !is_inside || !mapping.access.contains(access) || !has_frame {
            assert_eq!(self.world.thread_of(&self.actors[domain]).phase(), Phase::Ended, "a forbidden access");
            return self.replace_if_ended(domain);
        }
        object.committed.insert(index);
        let place = self.world.fake.access(domain, address, access).expect("an access that is allowed");
        let wanted = object.content.get(&index).copied().unwrap_or(0);
        assert_eq!(self.world.fake.load(place), wanted, "page {index} of object {}", mapping.object);
        if access == Rights::WRITE {
            self.world.fake.store(place, value);
            object.content.insert(index, value);
        }
    }

    /// A thread that accessed what it must not has ended: another one takes its place.
    fn replace_if_ended(&mut self, domain: usize) {
        if self.world.thread_of(&self.actors[domain]).phase() == Phase::Ended {
            let old = self.actors[domain];
            assert_eq!(self.world.insist(Call::HandleClose, &[old.handle]), Status::Ok);
            self.actors[domain] = self.world.thread(&self.homes[domain].clone(), domain, 10);
        }
        self.adopt_commits();
    }

    /// An access beyond a mapping may have given a page of the next one a frame.
    fn adopt_commits(&mut self) {
        let numbers: Vec<_> = self.model.objects.keys().copied().collect();
        for number in numbers {
            let Some(memory) = self.memory(number) else { continue };
            let object = self.model.objects.get_mut(&number).expect("an object");
            if object.is_on_demand {
                object.committed.extend((0..object.pages).filter(|page| memory.block_at(page * PAGE_SIZE).is_some()));
            }
        }
    }

    fn memory(&self, number: u32) -> Option<super::Ref<crate::memory_object::Memory<crate::arch::fake::Fake>>> {
        let object = &self.model.objects[&number];
        let domain = object.handles.iter().position(Option::is_some)?;
        let capability = self.world.capability(&self.homes[domain], object.handles[domain]?);
        match &capability.object {
            crate::capability::Object::Memory(memory) => Some(memory.clone()),
            _ => None,
        }
    }

    fn compare(&self) {
        for (number, object) in &self.model.objects {
            let Some(memory) = self.memory(*number) else { continue };
            let found = (memory.size(), memory.committed(), memory.mappings());
            let wanted =
                (object.pages * PAGE_SIZE, object.committed.len() as u64 * PAGE_SIZE, self.model.count(*number));
            assert_eq!(found, wanted, "size, committed bytes and mappings of object {number}");
        }
        for (domain, home) in self.homes.iter().enumerate() {
            let of_domain = self.model.mappings.iter().filter(|((holder, _), _)| *holder == domain);
            let wanted: Vec<_> = of_domain.map(|((_, at), mapping)| (*at, at + mapping.pages * PAGE_SIZE)).collect();
            let ranges = self.world.domain_of(home).space.mappings();
            let ranges = ranges.iter().filter_map(|mapping| mapping.range);
            let mut found: Vec<_> = ranges.map(|range| (range.start.as_u64(), range.end.as_u64())).collect();
            found.retain(|(at, _)| *at < BASE + 64 * LARGE_PAGE);
            assert_eq!(found, wanted, "mappings of domain {domain}");
        }
    }

    /// What was written is where the kernel tells devices to look for it, for as long as the object lives.
    fn compare_addresses(&mut self) {
        let numbers: Vec<_> = self.model.objects.keys().copied().collect();
        for number in numbers {
            let Some(memory) = self.memory(number) else { continue };
            let object = self.model.objects.get_mut(&number).expect("an object");
            for (page, value) in &object.content {
                let (address, length) = memory.for_devices(page * PAGE_SIZE).expect("a page with a frame");
                assert_eq!(*object.addresses.entry(*page).or_insert(address), address, "page {page} has moved");
                assert_eq!(self.world.fake.load(address), *value, "page {page} of object {number}");
                assert!((page + length / PAGE_SIZE) <= object.pages && length.is_multiple_of(PAGE_SIZE));
                // The last page of the run is that page of the object.
                let last = address.wrapping_add(length - PAGE_SIZE);
                let block = memory.block_at(page * PAGE_SIZE + length - PAGE_SIZE).expect("a frame at the run's end");
                assert_eq!(block.frames.wrapping_add(page * PAGE_SIZE + length - PAGE_SIZE - block.offset), last);
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let choice = 0_usize..16;
    let pages = prop_oneof![3 => 1_u64..24, 1 => 500_u64..1100];
    let part = prop_oneof![4 => 0_u64..24, 1 => Just(512_u64)];
    let map =
        (choice.clone(), (0..DOMAINS, 0..DOMAINS), (0_u64..6, 0_u64..3), (part.clone(), part.clone()), 0_usize..3);
    prop_oneof![
        2 => (0..DOMAINS, pages, any::<bool>())
            .prop_map(|(domain, pages, is_on_demand)| Step::Create { domain, pages, is_on_demand }),
        1 => choice.clone().prop_map(Step::Share),
        3 => (choice.clone(), part.clone(), part)
            .prop_map(|(object, first, pages)| Step::Commit { object, first, pages }),
        5 => map.prop_map(|(object, (from, to), (slot, page), (first, pages), access)| {
            // Now and then from the start, as large pages are.
            let first = if pages == 512 { 0 } else { first };
            Step::Map { object, from, to, slot, page: if pages == 512 { 0 } else { page }, first, pages, access }
        }),
        2 => (choice.clone(), any::<bool>()).prop_map(|(mapping, is_missed)| Step::Unmap { mapping, is_missed }),
        10 => (choice.clone(), 0_u64..600, 0_usize..3, 1_u64..1000)
            .prop_map(|(mapping, page, access, value)| Step::Touch { mapping, page, access, value }),
        1 => (choice.clone(), 0..DOMAINS).prop_map(|(object, domain)| Step::Close { object, domain }),
        1 => choice.prop_map(Step::Revoke),
    ]
}

#[test]
fn commits_of_several_parts_of_an_object_come_to_their_ends_by_turns() {
    let mut scene = Scene::new();
    scene.create(0, 1024, false);
    let handle = scene.model.objects[&0].handles[0].expect("a handle");
    let mut parts = vec![(1, 300), (400, 200), (700, 324)];
    for _ in 0..1000 {
        parts.retain(|(first, pages)| {
            let words = [handle, first * PAGE_SIZE, pages * PAGE_SIZE];
            let status = scene.world.status(&scene.actors[0].clone(), Call::MemoryCommit, &words);
            assert!(matches!(status, Status::Ok | Status::Again));
            status == Status::Again
        });
    }
    assert_eq!(parts, []);
    assert_eq!(scene.memory(0).expect("the object").committed(), 824 * PAGE_SIZE);
    scene.world.finish();
}

#[test]
fn devices_are_told_addresses_of_committed_memory_alone_and_only_with_the_right_to_ask() {
    let mut scene = Scene::new();
    let actor = scene.actors[0];
    let system = |scene: &mut Scene, rights| {
        let home = scene.homes[0];
        scene.world.grant(scene.world.system, &home, rights, 0)
    };
    let (dma, weak) = (system(&mut scene, Rights::all()), system(&mut scene, Rights::all() - Rights::DMA));
    let memory = scene.world.get(&actor, Call::MemoryCreate, &[3 * PAGE_SIZE, 0]);
    let device = scene.world.get(&actor, Call::DeviceMemory, &[dma, 1 << 32, PAGE_SIZE]);
    assert_eq!(scene.call(0, Call::MemoryCommit, &[memory, PAGE_SIZE, PAGE_SIZE]), Status::Ok);
    for (words, wanted) in [
        ([dma, memory, PAGE_SIZE], Status::Ok),
        ([dma, memory, 2 * PAGE_SIZE - 1], Status::Ok),
        ([dma, memory, 0], Status::NotMapped),
        ([dma, memory, 2 * PAGE_SIZE], Status::NotMapped),
        ([dma, memory, 3 * PAGE_SIZE], Status::BadArgument),
        ([dma, memory, u64::MAX], Status::BadArgument),
        ([dma, device, 0], Status::BadArgument),
        ([weak, memory, PAGE_SIZE], Status::Denied),
    ] {
        assert_eq!(scene.call(0, Call::MemoryAddress, &words), wanted, "{words:x?}");
    }
    let (_, found) = scene.world.act(&actor, Call::MemoryAddress, &[dma, memory, 2 * PAGE_SIZE - 8]).expect("results");
    assert_eq!(found[1], 8, "the run ends where nothing is committed");
    assert!(scene.world.fake.is_ram(HostPhys::new(found[0])));
    scene.world.finish();
}

proptest! {
    #![proptest_config(super::config(160))]

    #[test]
    fn pages_are_where_the_model_has_them_with_what_was_written(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut scene = Scene::new();
        steps.into_iter().for_each(|step| scene.step(step));
        scene.world.finish();
    }
}
