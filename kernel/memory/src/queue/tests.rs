use super::*;
use crate::host::{HostHeap, proptest_config, proptest_steps};
use proptest::prelude::*;
use std::collections::VecDeque;

type Heap = &'static HostHeap;

struct Other;

struct Item {
    key: u32,
    default_link: Link,
    other_link: Link,
}

impl Linked for Item {
    fn link(&self) -> &Link {
        &self.default_link
    }
}

impl Linked<Other> for Item {
    fn link(&self) -> &Link {
        &self.other_link
    }
}

fn item(heap: Heap, key: u32) -> Ref<Item, Heap> {
    Ref::try_new(heap, Item { key, default_link: Link::new(), other_link: Link::new() }).unwrap()
}

fn keys<Tag>(queue: &Queue<Item, Heap, Tag>) -> Vec<u32> {
    queue.iter().map(|item| item.key).collect()
}

#[test]
fn objects_come_out_in_the_order_in_which_they_went_in() {
    let heap = HostHeap::leak();
    let mut queue: Queue<Item, Heap> = Queue::new();
    for key in 1..4 {
        assert!(queue.push_back(item(heap, key)).is_ok());
    }
    assert!(queue.push_front(item(heap, 0)).is_ok());
    assert_eq!((keys(&queue), queue.front().unwrap().key), (vec![0, 1, 2, 3], 0));
    let out: Vec<u32> = core::iter::from_fn(|| queue.pop_front()).map(|item| item.key).collect();
    assert_eq!((out, queue.is_empty(), heap.objects()), (vec![0, 1, 2, 3], true, 0));
}

#[test]
fn an_object_is_refused_while_it_is_queued_and_taken_again_afterwards() {
    let heap = HostHeap::leak();
    let (mut one, mut two): (Queue<Item, Heap>, Queue<Item, Heap>) = (Queue::new(), Queue::new());
    let object = item(heap, 1);
    assert!(one.push_back(object.clone()).is_ok());
    assert!(object.default_link.is_queued());
    assert!(one.push_back(object.clone()).is_err());
    assert!(two.push_front(object.clone()).is_err());
    assert!(two.push_sorted(object.clone(), |item| item.key).is_err());
    assert!(one.pop_front().is_some_and(|popped| Ref::ptr_eq(&popped, &object)));
    assert!(two.push_back(object.clone()).is_ok());
    assert_eq!(Ref::count(&object), 2);
}

#[test]
fn an_object_may_be_in_one_queue_of_each_kind() {
    let heap = HostHeap::leak();
    let mut one: Queue<Item, Heap> = Queue::new();
    let mut other: Queue<Item, Heap, Other> = Queue::new();
    let object = item(heap, 1);
    assert!(one.push_back(object.clone()).is_ok());
    assert!(other.push_back(object.clone()).is_ok());
    assert!(one.remove(&object).is_some());
    assert_eq!((keys(&one), keys(&other)), (vec![], vec![1]));
}

#[test]
fn only_the_queue_that_an_object_is_in_removes_it() {
    let heap = HostHeap::leak();
    let (mut one, mut two): (Queue<Item, Heap>, Queue<Item, Heap>) = (Queue::new(), Queue::new());
    let object = item(heap, 1);
    assert!(one.remove(&object).is_none());
    assert!(one.push_back(object.clone()).is_ok());
    assert!(two.push_back(item(heap, 2)).is_ok());
    assert!(two.remove(&object).is_none());
    assert!(one.contains(&object) && !two.contains(&object));
    assert!(one.remove(&object).is_some());
    assert!(one.remove(&object).is_none());
}

#[test]
fn a_moved_queue_keeps_its_objects() {
    let heap = HostHeap::leak();
    let object = item(heap, 1);
    let mut queue: Queue<Item, Heap> = Queue::new();
    assert!(queue.push_back(object.clone()).is_ok());
    let mut moved = Box::new(core::mem::take(&mut queue));
    assert!(queue.remove(&object).is_none());
    assert!(moved.remove(&object).is_some());
}

#[test]
fn a_dropped_queue_drops_its_references() {
    let heap = HostHeap::leak();
    let mut queue: Queue<Item, Heap> = Queue::new();
    let kept = item(heap, 1);
    assert!(queue.push_back(kept.clone()).is_ok());
    assert!(queue.push_back(item(heap, 2)).is_ok());
    drop(queue);
    assert_eq!((heap.objects(), Ref::count(&kept), kept.default_link.is_queued()), (1, 1, false));
}

#[test]
fn the_first_object_that_matches_is_found_and_stays() {
    let heap = HostHeap::leak();
    let mut queue: Queue<Item, Heap> = Queue::new();
    for key in [1, 2, 2, 3] {
        assert!(queue.push_back(item(heap, key)).is_ok());
    }
    let found = queue.find(|item| item.key == 2).unwrap();
    assert!(queue.iter().nth(1).is_some_and(|item| ptr::eq(item, &*found)));
    assert!(queue.find(|item| item.key == 4).is_none());
    assert_eq!((Ref::count(&found), keys(&queue)), (2, vec![1, 2, 2, 3]));
}

#[test]
fn the_first_object_can_be_referenced_without_leaving() {
    let heap = HostHeap::leak();
    let mut queue: Queue<Item, Heap> = Queue::new();
    assert!(queue.front_ref().is_none() && queue.front().is_none());
    assert!(queue.push_back(item(heap, 1)).is_ok());
    let first = queue.front_ref().unwrap();
    assert_eq!((Ref::count(&first), keys(&queue)), (2, vec![1]));
    drop(queue);
    assert_eq!((first.key, heap.objects()), (1, 1));
}

/// Objects that return one link between them.
struct Shares {
    link: Ref<Link, Heap>,
}

impl Linked for Shares {
    fn link(&self) -> &Link {
        &self.link
    }
}

#[test]
fn objects_that_share_a_link_are_not_confused() {
    let heap = HostHeap::leak();
    let link = Ref::try_new(heap, Link::new()).unwrap();
    let make = || Ref::try_new(heap, Shares { link: link.clone() }).unwrap();
    let (one, other) = (make(), make());
    let mut queue: Queue<Shares, Heap> = Queue::new();
    assert!(queue.push_back(one.clone()).is_ok());
    assert!(queue.push_back(other.clone()).is_err());
    assert!(queue.remove(&other).is_none());
    assert!(queue.remove(&one).is_some_and(|removed| Ref::ptr_eq(&removed, &one)));
}

#[derive(Clone, Debug)]
enum Step {
    PushBack(usize),
    PushFront(usize),
    PushSorted(usize),
    Pop,
    Remove(usize),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let object = 0..6_usize;
    let step = prop_oneof![
        object.clone().prop_map(Step::PushBack),
        object.clone().prop_map(Step::PushFront),
        object.clone().prop_map(Step::PushSorted),
        Just(Step::Pop),
        object.prop_map(Step::Remove),
    ];
    (0..2_usize, step)
}

proptest! {
    #![proptest_config(proptest_config(200))]

    #[test]
    fn two_queues_behave_like_two_lists(steps in proptest::collection::vec(step(), 1..proptest_steps(60))) {
        let heap = HostHeap::leak();
        // Keys in pairs, so that there are equal ones.
        let objects: Vec<_> = (0..6).map(|index| item(heap, index / 2)).collect();
        let key = |index: usize| index / 2;
        let mut queues: [Queue<Item, Heap>; 2] = [Queue::new(), Queue::new()];
        let mut models: [VecDeque<usize>; 2] = Default::default();
        for (at, step) in steps {
            let queued = |models: &[VecDeque<usize>; 2], index| models.iter().any(|model| model.contains(&index));
            match step {
                Step::PushBack(index) => {
                    let fits = !queued(&models, index);
                    prop_assert_eq!(queues[at].push_back(objects[index].clone()).is_ok(), fits);
                    if fits { models[at].push_back(index) }
                }
                Step::PushFront(index) => {
                    let fits = !queued(&models, index);
                    prop_assert_eq!(queues[at].push_front(objects[index].clone()).is_ok(), fits);
                    if fits { models[at].push_front(index) }
                }
                Step::PushSorted(index) => {
                    let fits = !queued(&models, index);
                    prop_assert_eq!(queues[at].push_sorted(objects[index].clone(), |item| item.key).is_ok(), fits);
                    if fits {
                        let before = models[at].iter().rposition(|&other| key(other) <= key(index));
                        let place = before.map_or(0, |place| place + 1);
                        models[at].insert(place, index);
                    }
                }
                Step::Pop => {
                    let expected = models[at].pop_front();
                    let popped = queues[at].pop_front();
                    prop_assert_eq!(popped.is_some(), expected.is_some());
                    if let (Some(popped), Some(index)) = (popped, expected) {
                        prop_assert!(Ref::ptr_eq(&popped, &objects[index]));
                    }
                }
                Step::Remove(index) => {
                    let place = models[at].iter().position(|&other| other == index);
                    prop_assert_eq!(queues[at].remove(&objects[index]).is_some(), place.is_some());
                    if let Some(place) = place { models[at].remove(place); }
                }
            }
            for (queue, model) in queues.iter().zip(&models) {
                let expected: Vec<_> = model.iter().map(|&index| Ref::as_ptr(&objects[index])).collect();
                prop_assert_eq!(queue.iter().map(ptr::from_ref).collect::<Vec<_>>(), expected);
            }
        }
        drop(queues);
        prop_assert!(objects.iter().all(|object| Ref::count(object) == 1));
    }
}
