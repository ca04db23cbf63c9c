//! Walks over the whole table, a little at a time: nobody's keepalive, BFD or first withdrawal waits for one to end.
//!
//! The first step of a walk is done at once, so that one over few routes is over before anything else happens; the rest
//! follows with [`Router::handle_timeout`], which is due until all is done. Walks that concern one peer's routes are done
//! before that peer can say anything that they would take for what was there before.

use std::collections::VecDeque;

use super::import::import_step;
use super::{PeerId, Router};
use crate::rib::{Source, Task};

/// What one step may cost, in destinations looked at, with nobody to tell of the changes. Some hundreds of microseconds.
pub(super) const EFFORT: usize = 1 << 16;

/// The walks under way, in the order in which they were begun.
#[derive(Debug)]
pub(super) struct Work {
    tasks: VecDeque<Task>,
    /// See [`EFFORT`]; less in tests.
    pub(super) effort: usize,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            tasks: VecDeque::new(),
            effort: EFFORT,
        }
    }
}

impl Work {
    pub(super) fn is_pending(&self) -> bool {
        !self.tasks.is_empty()
    }

    fn concerns(&self, source: Source) -> bool {
        self.tasks.iter().any(|task| task.source() == Some(source))
    }

    /// Where a new task is put: at the end, unless it can be done along with the last one.
    fn push(&mut self, task: Task) {
        let rest = match self.tasks.back_mut() {
            Some(last) => last.absorb(task),
            None => Err(task),
        };
        if let Err(task) = rest {
            self.tasks.push_back(task);
        }
    }
}

impl Router {
    /// Begins a walk.
    pub(super) fn begin(&mut self, mut task: Task) {
        let waits = match task.source() {
            Some(source) => self.work.concerns(source),
            None => self.work.is_pending(),
        };
        if !waits {
            self.step(&mut task, self.work.effort);
        }
        if !task.is_done() {
            self.work.push(task);
        }
    }

    /// Begins a walk if there is anything to walk for.
    pub(super) fn begin_any(&mut self, task: Option<Task>) {
        if let Some(task) = task {
            self.begin(task);
        }
    }

    /// Takes the next step of what is under way.
    pub(super) fn work(&mut self) {
        let Some(mut task) = self.work.tasks.pop_front() else {
            return;
        };
        self.step(&mut task, self.work.effort);
        if !task.is_done() {
            self.work.tasks.push_front(task);
        }
    }

    /// Ends the walks over a peer's routes, so that what comes next is not taken for what was there before.
    pub(super) fn finish(&mut self, id: PeerId) {
        let source = id.source();
        if !self.work.concerns(source) {
            return;
        }
        let (own, others) = std::mem::take(&mut self.work.tasks)
            .into_iter()
            .partition(|task| task.source() == Some(source));
        self.work.tasks = others;
        let own: VecDeque<Task> = own;
        for mut task in own {
            while !task.is_done() {
                self.step(&mut task, usize::MAX);
            }
        }
    }

    /// A policy that has changed is applied to all there is as long as there is a session that it is the policy of.
    pub(super) fn finish_reconsidering(&mut self, id: PeerId) {
        let reconsiders = |task: &Task| task.reconsiders() && task.source() == Some(id.source());
        if self.work.tasks.iter().any(reconsiders) {
            self.finish(id);
        }
    }

    /// The policy has changed once more: applying the last one is for nothing.
    pub(super) fn stop_reconsidering(&mut self, id: PeerId) {
        let source = Some(id.source());
        self.work
            .tasks
            .retain(|task| !task.reconsiders() || task.source() != source);
    }

    fn step(&mut self, task: &mut Task, effort: usize) {
        // Each change is told to every group and subscriber.
        let told = 1 + (self.groups.len() + self.subscribers.len()) / 4;
        let effort = effort.div_ceil(told);
        let changed = if task.reconsiders() {
            self.reconsider_step(task, effort)
        } else {
            self.rib.step(task, effort)
        };
        self.spread(&changed);
    }

    fn reconsider_step(
        &mut self,
        task: &mut Task,
        effort: usize,
    ) -> Vec<crate::rib::DestinationId> {
        let Some(source) = task.source() else {
            return Vec::new();
        };
        let id = PeerId(source.0);
        let Some(peer) = self.peers.get(&id) else {
            task.abandon();
            return Vec::new();
        };
        let stepped = import_step(
            (&self.config, self.epoch),
            (id, peer),
            &mut self.rib,
            (task, effort),
        );
        let Some((changed, refused)) = stepped else {
            task.abandon();
            return Vec::new();
        };
        self.count_refused(id, &refused);
        if task.is_done() {
            self.observe_reconsidered(id);
        }
        changed
    }
}
