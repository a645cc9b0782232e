//! Long runs without calls: clients that stay for hours, and clients that come and go. What they
//! needed is there again afterwards, in every table.

use std::time::Duration;

use sipring::base::id::Transport;
use sipring::base::metrics::{Gauges, RoundTrips};

use crate::lab;
use crate::phone::{Phone, Style};
use crate::profile::{Dice, Profile};
use crate::world::World;

/// Requests that the books remember in a long run.
const KEPT: usize = 2000;

/// So many clients of each transport, a user each, all registered.
fn house(shards: u16, of_each: usize) -> World {
    let phones = of_each * Transport::ALL.len();
    let profile = Profile { shards, phones, users: phones, ..Profile::calm(7) };
    let mut world = World::new(profile, lab::config(), false);
    world.books.kept = KEPT;
    for id in 0..phones {
        let transport = Transport::ALL[id % Transport::ALL.len()];
        let styles = [Style::Outbound, Style::Hidden, Style::Fresh];
        let style = styles[id / Transport::ALL.len() % styles.len()];
        let ip = format!("203.0.{}.{}", id / 250, 1 + id % 250);
        world.phones.push(Phone::new(id, transport, &ip, id, style));
    }
    world.arrive_all();
    world.pass(Duration::from_secs(60));
    world
}

fn gauges(world: &World) -> Vec<Gauges> {
    // How long pings take is the network's matter.
    let of = |gauges: Gauges| Gauges { round_trips: [RoundTrips::default(); 5], ..gauges };
    world.engines.iter().map(|engine| of(engine.gauges())).collect()
}

fn leave(mut world: World) -> World {
    world.leave();
    if let Some(violation) = world.books.violation() {
        panic!("{violation:?}");
    }
    world
}

/// Clients that ping, are pinged and refresh for `hours`; all is as at first then.
pub fn idle(of_each: usize, hours: u64) -> World {
    let mut world = house(3, of_each);
    let before = gauges(&world);
    world.pass(Duration::from_secs(hours * 3600));
    assert_eq!(gauges(&world), before, "{:?}", world.books.violation());
    assert!(world.phones.iter().all(|phone| phone.registration.is_on));
    leave(world)
}

/// So many REGISTERs: refreshes, removals, replacements from new flows, after every kind of loss.
pub fn registers(of_each: usize, count: u64) -> World {
    let mut world = house(4, of_each);
    let mut dice = Dice::new(count, 9);
    while world.books.figures.registers < count && world.books.violation().is_none() {
        for phone in 0..world.phones.len() {
            let conn = world.phones[phone].conn.filter(|conn| world.conns[*conn].ready);
            match (dice.below(40), conn) {
                (0, Some(conn)) => world.reset(conn),
                (1, Some(conn)) => {
                    world.hang_up(conn);
                    world.on_lost(conn);
                }
                (2, Some(conn)) => world.cut(conn),
                (3, None) if world.phones[phone].transport == Transport::Udp => {
                    world.come_back(phone);
                }
                (4..8, _) if world.is_online(phone) => world.register(phone, Some(0)),
                _ if world.is_online(phone) => world.register(phone, None),
                _ => {}
            }
        }
        world.pass(Duration::from_secs(1));
    }
    leave(world)
}
