//! Who gets what is published on a topic, as the shard that owns it knows it.
//!
//! Invariant: every message goes once to every shard that has plain subscribers and to one member of every group; the
//! members of a group take turns. Pure; lives on the topic's owner.

use crate::runtime::ShardId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A subscriber in a group: where it is, and its number there.
pub type Member = (ShardId, u64);

/// One topic.
#[derive(Debug, Default)]
pub struct Topic {
    /// How many plain subscribers each shard has.
    plain: BTreeMap<ShardId, usize>,
    groups: BTreeMap<Arc<str>, Group>,
    /// Messages since somebody subscribes.
    pub published: u64,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<Member>,
    next: usize,
}

impl Topic {
    /// One subscriber more.
    pub fn add(&mut self, queue: Option<&Arc<str>>, member: Member) {
        match queue {
            None => *self.plain.entry(member.0).or_default() += 1,
            Some(queue) => self.groups.entry(queue.clone()).or_default().members.push(member),
        }
    }

    /// One less.
    pub fn remove(&mut self, queue: Option<&Arc<str>>, member: Member) {
        match queue {
            None => {
                let count = self.plain.entry(member.0).or_default();
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.plain.remove(&member.0);
                }
            }
            Some(queue) => {
                let Some(group) = self.groups.get_mut(queue) else { return };
                group.remove(member);
                if group.members.is_empty() {
                    self.groups.remove(queue);
                }
            }
        }
    }

    /// How many subscribe.
    pub fn subscribers(&self) -> usize {
        self.plain.values().sum::<usize>()
            + self.groups.values().map(|group| group.members.len()).sum::<usize>()
    }

    /// Whether nobody subscribes.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    /// The shards that have plain subscribers.
    pub fn plain(&self) -> impl Iterator<Item = ShardId> {
        self.plain.keys().copied()
    }

    /// The next member of every group.
    pub fn turns(&mut self) -> impl Iterator<Item = (&Arc<str>, Member)> {
        self.groups.iter_mut().map(|(queue, group)| (queue, group.turn()))
    }

    /// The next member of one group, if it has any.
    pub fn turn_of(&mut self, queue: &Arc<str>) -> Option<Member> {
        self.groups.get_mut(queue).map(Group::turn)
    }
}

impl Group {
    fn turn(&mut self) -> Member {
        self.next %= self.members.len();
        self.next += 1;
        self.members[self.next - 1]
    }

    fn remove(&mut self, member: Member) {
        let Some(at) = self.members.iter().position(|one| *one == member) else { return };
        self.members.remove(at);
        // Whose turn it was keeps it.
        if at < self.next {
            self.next -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_of_a_group_take_turns_whoever_leaves() {
        let mut topic = Topic::default();
        let queue: Arc<str> = "q".into();
        let member = |id| (ShardId(0), id);
        (0..3).for_each(|id| topic.add(Some(&queue), member(id)));
        let turns = |topic: &mut Topic, count| -> Vec<u64> {
            (0..count).filter_map(|_| topic.turn_of(&queue)).map(|(_, id)| id).collect()
        };
        assert_eq!(turns(&mut topic, 4), [0, 1, 2, 0]);
        topic.remove(Some(&"q".into()), member(0));
        assert_eq!(turns(&mut topic, 3), [1, 2, 1]);
        topic.remove(Some(&"q".into()), member(2));
        assert_eq!(turns(&mut topic, 2), [1, 1]);
        topic.remove(Some(&"q".into()), member(1));
        assert_eq!(turns(&mut topic, 1), [0; 0]);
        assert!(topic.is_empty());
    }

    #[test]
    fn a_shard_is_named_once_however_many_it_has() {
        let mut topic = Topic::default();
        (0..5).for_each(|id| topic.add(None, (ShardId((id % 2) as u16), id)));
        assert_eq!(topic.plain().collect::<Vec<_>>(), [ShardId(0), ShardId(1)]);
        topic.remove(None, (ShardId(1), 1));
        topic.remove(None, (ShardId(1), 3));
        assert_eq!(topic.plain().collect::<Vec<_>>(), [ShardId(0)]);
    }
}
