//! Fair shares: who gets a place and who is refused, at a clock that stands still.

use tokio::task::{JoinHandle, yield_now};

use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn owner(name: &str) -> Owner {
    Owner::new(name)
}

type Waiting = JoinHandle<Result<FairPlace, NoPlace>>;

async fn wait(places: &FairPlaces, name: &str) -> Waiting {
    let (places, owner) = (places.clone(), owner(name));
    let waiting = tokio::spawn(async move { places.enter(&owner, WAIT).await });
    yield_now().await;
    waiting
}

async fn hold(places: &FairPlaces, name: &str) -> FairPlace {
    let place = places.enter(&owner(name), Duration::ZERO).await;
    place.expect("a place is free")
}

async fn ended(waiting: &mut Vec<(char, Waiting)>) -> Vec<(char, FairPlace)> {
    yield_now().await;
    let mut got = Vec::new();
    let mut rest = Vec::new();
    for (name, one) in waiting.drain(..) {
        if one.is_finished() {
            got.push((name, one.await.expect("no panic").expect("a place")));
        } else {
            rest.push((name, one));
        }
    }
    *waiting = rest;
    got
}

/// The owners who get places, in turn, when `held` hold all there are and
/// `waiting` came in that order; each gives its place back before the next.
async fn turns(held: &str, waiting: &str) -> String {
    let places = FairPlaces::new(held.len(), 64);
    let mut running = Vec::new();
    for name in held.chars() {
        running.push((name, hold(&places, &name.to_string()).await));
    }
    let mut queue = Vec::new();
    for name in waiting.chars() {
        queue.push((name, wait(&places, &name.to_string()).await));
    }
    let mut order = String::new();
    loop {
        let got = ended(&mut queue).await;
        order.extend(got.iter().map(|(name, _)| *name));
        running.extend(got);
        if running.is_empty() {
            assert_eq!((places.held(), places.waiting()), (0, 0));
            return order;
        }
        drop(running.remove(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_free_place_goes_to_the_owner_with_fewest() {
    // All of one owner: first come, first served.
    assert_eq!(turns("a", "aaa").await, "aaa");
    // b has the kept place at once, and every second one after that.
    assert_eq!(turns("aa", "aaaab").await, "baaaa");
    assert_eq!(turns("a", "aaabb").await, "babaa");
    assert_eq!(turns("a", "aaabbb").await, "bababa");
}

#[tokio::test(start_paused = true)]
async fn owners_take_turns_however_many_they_are() {
    // a and b hold all there is and have more waiting; c came last, once.
    assert_eq!(turns("ab", "ababc").await, "cabab");
    let places = FairPlaces::new(1, 64);
    let mut held = vec![hold(&places, "a").await, hold(&places, "b").await];
    let mut flood = Vec::new();
    for name in ["a", "b", "a", "b"] {
        flood.push(wait(&places, name).await);
    }
    let c = wait(&places, "c").await;
    // Each gives its place back once: before that, c has its turn.
    drop(held.remove(0));
    yield_now().await;
    assert!(
        c.is_finished(),
        "a's next came before c, and a had a place before"
    );
    drop(held);
    for one in flood {
        one.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn one_place_is_kept_for_owners_who_hold_none() {
    let places = FairPlaces::new(2, 8);
    let _held = (hold(&places, "a").await, hold(&places, "a").await);
    let refused = places.enter(&owner("a"), Duration::ZERO).await;
    assert_eq!(refused.err(), Some(NoPlace::Late));
    let kept = hold(&places, "b").await;
    assert_eq!(places.held(), 3);
    for name in ["b", "c"] {
        let refused = places.enter(&owner(name), Duration::ZERO).await;
        assert_eq!(refused.err(), Some(NoPlace::Late), "{name}");
    }
    drop(kept);
    hold(&places, "c").await;
}

#[tokio::test(start_paused = true)]
async fn one_owner_cannot_starve_another() {
    let places = FairPlaces::new(4, 64);
    let mut flood = Vec::new();
    for _ in 0..4 {
        flood.push(hold(&places, "a").await);
    }
    let mut waiting = Vec::new();
    for _ in 0..64 {
        waiting.push(wait(&places, "a").await);
    }
    for _ in 0..20 {
        drop(hold(&places, "b").await);
    }
    assert_eq!((places.held(), places.waiting()), (4, 64));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_who_has_most_waiting() {
    let places = FairPlaces::new(1, 3);
    let _held = (hold(&places, "a").await, hold(&places, "b").await);
    let mut of_a = Vec::new();
    for _ in 0..3 {
        of_a.push(wait(&places, "a").await);
    }
    let refused = places.enter(&owner("a"), WAIT).await;
    assert_eq!(refused.err(), Some(NoPlace::Full));
    // The newest of a's makes room for the first of b's.
    let first = wait(&places, "b").await;
    yield_now().await;
    let newest = of_a.pop().expect("three");
    assert_eq!(newest.await.expect("no panic").err(), Some(NoPlace::Full));
    // With two of a's and one of b's, another of b's would make b the first.
    let refused = places.enter(&owner("b"), WAIT).await;
    assert_eq!(refused.err(), Some(NoPlace::Full));
    let other = wait(&places, "c").await;
    assert_eq!(places.waiting(), 3);
    assert_eq!(places.waiting_of(&owner("a")), 1);
    first.abort();
    other.abort();
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_queue() {
    let places = FairPlaces::new(1, 1);
    let held = hold(&places, "a").await;
    let waiting = wait(&places, "a").await;
    assert_eq!(places.waiting(), 1);
    waiting.abort();
    assert!(waiting.await.expect_err("aborted").is_cancelled());
    assert_eq!(places.waiting(), 0);
    let late = places.enter(&owner("a"), Duration::from_secs(3)).await;
    assert_eq!(late.err(), Some(NoPlace::Late));
    assert_eq!(places.waiting(), 0);
    drop(held);
    hold(&places, "a").await;
    assert_eq!(places.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_refuses_all_but_those_who_hold() {
    let places = FairPlaces::new(1, 8);
    let held = hold(&places, "a").await;
    let waiting = wait(&places, "a").await;
    places.close();
    assert_eq!(
        waiting.await.expect("no panic").err(),
        Some(NoPlace::Closed)
    );
    let refused = places.enter(&owner("b"), WAIT).await;
    assert_eq!(refused.err(), Some(NoPlace::Closed));
    drop(held);
    assert_eq!(places.held(), 0);
}

proptest::proptest! {
    #[test]
    fn no_place_is_lost_and_none_is_made_up(
        capacity in 1..4_usize,
        steps in proptest::collection::vec((0..4_u8, 0..3_u8), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let places = FairPlaces::new(capacity, 4);
            let (mut held, mut waiting) = (Vec::new(), Vec::new());
            for (who, what) in steps {
                let name = who.to_string();
                match what {
                    0 => waiting.push(wait(&places, &name).await),
                    1 if !held.is_empty() => drop(held.remove(usize::from(who) % held.len())),
                    2 if !waiting.is_empty() => {
                        let gone: Waiting = waiting.remove(usize::from(who) % waiting.len());
                        gone.abort();
                        drop(gone.await);
                    }
                    _ => held.extend(places.enter(&owner(&name), Duration::ZERO).await),
                }
                yield_now().await;
                assert!(places.held() <= capacity + KEPT);
                assert!(places.waiting() <= 4);
                // Who waits could not run.
                assert!(places.waiting() == 0 || places.held() >= capacity);
            }
            for one in waiting {
                one.abort();
                drop(one.await);
            }
            drop(held);
            assert_eq!((places.held(), places.waiting()), (0, 0));
        });
    }
}
