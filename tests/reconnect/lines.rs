//! Several users on one connection, as phones with two lines have it, and devices that change hands:
//! each call is its own user's, whoever registered there first.

use sipring::base::id::Transport;

use crate::client::{Client, lab_of, users_of};
use crate::lab::Lab;
use crate::lab::loss::{ENDS, End, KNOWN, Known};
use crate::lab::text::Sip;
use crate::talk::Talk;

/// Somebody who registers on a flow and may leave again, another user who registers there after it,
/// both as the same instance with the same Contact, and whom they talk to.
struct Scene {
    lab: Lab,
    first: Client,
    second: Client,
    other: Client,
}

fn scene(shards: u16, known: Known, leaves: bool) -> Scene {
    let names: [String; 3] = users_of(shards);
    let mut lab = lab_of(shards, &[&names[0], &names[1], &names[2]]);
    let mut first = Client::new(&mut lab, 0, &names[2], known);
    if leaves {
        first.leave(&mut lab);
    }
    let mut second = first.twin(&mut lab);
    second.user.clone_from(&names[0]);
    second.log_in(&mut lab);
    second.take(&mut lab);
    let other = Client::new(&mut lab, shards - 1, &names[1], known);
    other.take(&mut lab);
    Scene { lab, first, second, other }
}

/// A call to or from the second user.
fn call(lab: &mut Lab, second: Client, other: Client, is_caller: bool) -> Talk {
    let (caller, callee) = if is_caller { (second, other) } else { (other, second) };
    let mut talk = Talk::ring(lab, caller, callee);
    talk.answer(lab);
    talk
}

/// The second user's side of the call.
fn near(talk: &mut Talk, is_caller: bool) -> &mut Client {
    if is_caller { &mut talk.caller } else { &mut talk.callee }
}

/// What the other side says while the second user is away arrives when it is back, and nowhere else.
fn goes_on(lab: &mut Lab, talk: &mut Talk, is_caller: bool, end: End, first: &Client) {
    let draft = match is_caller {
        true => talk.by_callee(lab, "INFO"),
        false => talk.by_caller(lab, "INFO"),
    };
    let far = if is_caller { talk.callee.clone() } else { talk.caller.clone() };
    far.send(lab, &draft.text());
    first.heard_nothing(lab);
    near(talk, is_caller).come_back(lab, 0, end);
    let info = near(talk, is_caller).take_method(lab, "INFO");
    near(talk, is_caller).send(lab, &info.response(200, "", &[]));
    let mut told: Vec<u16> = far.take(lab).iter().map(Sip::status).collect();
    told.retain(|status| *status != 100);
    assert_eq!(told, [200]);
    for from_caller in [true, false] {
        for method in ["INVITE", "INFO"] {
            talk.exchange(lab, method, from_caller);
        }
    }
    first.heard_nothing(lab);
    talk.exchange(lab, "BYE", is_caller);
}

/// Who had the device before is another user, and may be anywhere with the same instance.
#[test]
fn who_had_the_flow_before_gets_nothing_of_who_has_it() {
    for shards in [1, 2] {
        for known in KNOWN {
            for is_caller in [true, false] {
                let Scene { mut lab, mut first, second, other } = scene(shards, known, true);
                let mut talk = call(&mut lab, second, other, is_caller);
                near(&mut talk, is_caller).lose(&mut lab, End::Reset);
                first.connect(&mut lab, 0, Transport::Wss);
                first.log_in(&mut lab);
                goes_on(&mut lab, &mut talk, is_caller, End::Reset, &first);
                lab.finish();
            }
        }
    }
}

/// The calls of each line follow that line, in whichever order they register on the next flow.
#[test]
fn a_call_of_the_second_line_goes_on() {
    for shards in [1, 2] {
        for known in KNOWN {
            for end in ENDS {
                for is_caller in [true, false] {
                    let Scene { mut lab, mut first, second, other } = scene(shards, known, false);
                    let mut talk = call(&mut lab, second, other, is_caller);
                    near(&mut talk, is_caller).lose(&mut lab, end);
                    near(&mut talk, is_caller).come_back(&mut lab, shards - 1, end);
                    first.phone = near(&mut talk, is_caller).phone;
                    first.log_in(&mut lab);
                    near(&mut talk, is_caller).take(&mut lab);
                    for from_caller in [true, false] {
                        for method in ["INVITE", "INFO"] {
                            talk.exchange(&mut lab, method, from_caller);
                        }
                    }
                    talk.exchange(&mut lab, "BYE", !is_caller);
                    lab.finish();
                }
            }
        }
    }
}

/// Nor of who calls there with a password of its own and never registers.
#[test]
fn who_had_the_flow_before_gets_nothing_of_who_only_calls_there() {
    for shards in [1, 2] {
        for known in KNOWN {
            let names: [String; 3] = users_of(shards);
            let mut lab = lab_of(shards, &[&names[0], &names[1], &names[2]]);
            let mut first = Client::new(&mut lab, 0, &names[2], known);
            let mut second = first.twin(&mut lab);
            second.user.clone_from(&names[0]);
            first.leave(&mut lab);
            // Proves who it is, and registers nothing.
            second.leave(&mut lab);
            second.take(&mut lab);
            let other = Client::new(&mut lab, shards - 1, &names[1], known);
            other.take(&mut lab);
            let mut talk = call(&mut lab, second, other, true);
            talk.caller.lose(&mut lab, End::Reset);
            first.connect(&mut lab, 0, Transport::Wss);
            first.log_in(&mut lab);
            first.take(&mut lab);
            let info = talk.by_callee(&mut lab, "INFO");
            talk.callee.send(&mut lab, &info.text());
            talk.callee.take_status(&mut lab, 480);
            first.heard_nothing(&mut lab);
        }
    }
}
