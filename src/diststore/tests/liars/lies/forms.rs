//! The messages as a liar may fill them: what must not be absent may be, and a state may be none.

use super::*;

/// A member, whose state may be none.
#[derive(Debug, Clone)]
pub struct Someone {
    pub location: Location,
    pub state: i32,
    pub incarnation: i64,
}
thrift_struct!(Someone { 1 location, 2 state, 3 incarnation });

impl From<Member> for Someone {
    fn from(member: Member) -> Self {
        Someone {
            location: member.location,
            state: member.state as i32,
            incarnation: member.incarnation,
        }
    }
}

pub struct Reply {
    pub me: Option<Someone>,
    pub you: Standing,
    pub granted: Vec<Lease>,
    pub digest: u64,
    pub side: Option<Side>,
    pub members: Option<Vec<Someone>>,
    pub missing: Option<Vec<Someone>>,
    pub floor: i64,
    pub clean: bool,
}
thrift_struct!(Reply { 1 me, 2 you, 3 granted, 4 digest, 5 side, 6 members, 7 missing, 8 floor, 9 clean });

pub struct Entered {
    pub kind: i32,
    pub members: Vec<Someone>,
    pub lost: Vec<Someone>,
    pub locations: Vec<Location>,
    pub reason: String,
    pub missing: Vec<Someone>,
    pub expired: Vec<Someone>,
    pub floor: i64,
}
thrift_struct!(Entered { 1 kind, 2 members, 3 lost, 4 locations, 5 reason, 6 missing, 7 expired, 8 floor });

pub struct Candidate {
    pub me: Someone,
    pub service: String,
    pub replicas: u32,
    pub tick_millis: i64,
    pub version: i32,
}
thrift_struct!(Candidate { 1 me, 2 service, 3 replicas, 4 tick_millis, 5 version });

pub struct Reached {
    pub reached: bool,
    pub reason: String,
}
thrift_struct!(Reached { 1 reached, 2 reason });

pub struct Reach {
    pub candidate: Someone,
}
thrift_struct!(Reach { 1 candidate });

pub struct Comparison {
    pub caller: Caller,
    pub shared: u64,
    pub digests: Vec<u64>,
    pub exchanged: bool,
    pub view: u64,
}
thrift_struct!(Comparison { 1 caller, 2 shared, 3 digests, 4 exchanged, 5 view });

pub struct Compared {
    pub me: Option<Someone>,
    pub members: Option<Vec<Someone>>,
    pub digests: Option<Vec<u64>>,
    pub left: Vec<Someone>,
}
thrift_struct!(Compared { 1 me, 2 members, 3 digests, 4 left });

pub struct Said {
    pub taken: Vec<i64>,
    pub members: Option<Vec<Someone>>,
    pub full: Option<String>,
}
thrift_struct!(Said { 1 taken, 2 members, 3 full });

pub struct Found {
    pub version: i64,
    pub value: Vec<u8>,
    pub members: Option<Vec<Someone>>,
}
thrift_struct!(Found { 1 version, 2 value, 3 members });

pub struct Exchanged<'a> {
    pub items: Vec<Item<'a>>,
    pub wanted: Vec<i32>,
    pub reached: Option<Vec<u8>>,
    pub members: Option<Vec<Someone>>,
}
thrift_struct!(Exchanged<'a> { 1 items, 2 wanted, 3 reached, 4 members });

pub struct Forwarded {
    pub done: Option<Vec<u8>>,
    pub tried: Option<i64>,
}
thrift_struct!(Forwarded { 1 done, 2 tried });
