//! What goes wrong around the cache: files that close, go back or are replaced, a disk that fails or loses, processes that end.

use super::disk::{Table, Trouble};
use super::truth::State;
use super::world::{TENANTS, World, open};

/// Builds of the program that come and go.
const BUILDS: usize = 3;

impl World {
    /// The file is closed for idleness and opened again.
    pub(super) fn reopen(&mut self, tenant: usize) {
        self.settle(tenant);
        let id = self.tenants[tenant].id.clone();
        self.cache.detach(&id);
        if self.draw(6) == 0 {
            self.exchange(tenant);
        }
        // Commits are noted from here on, and may come between reading the file and telling the cache.
        let _noting = self.cache.tenant(&id);
        let seed = self.seed_of(tenant);
        if self.draw(3) == 0 {
            self.move_writer(tenant);
            self.settle(tenant);
        }
        self.cache.attach(&id, &seed);
    }

    /// An older state is put in place of a closed file, which goes on from there, perhaps until it is as far as it was.
    fn exchange(&mut self, tenant: usize) {
        let before = self.latest(tenant).lsn;
        self.roll_back(tenant);
        while self.latest(tenant).lsn < before && self.draw(8) > 0 {
            drop(self.commit(tenant));
        }
        self.acknowledge(tenant);
    }

    /// An older state of the file is restored while the node runs; that starts a new history.
    pub(super) fn restore(&mut self, tenant: usize) {
        self.settle(tenant);
        let mut next = self.older(tenant);
        self.lineages += 1;
        next.lineage = [self.lineages; 16];
        self.tenants[tenant].history.borrow_mut().push(next);
        let seed = self.seed_of(tenant);
        self.cache.reset(&self.tenants[tenant].id.clone(), &seed);
        self.acknowledge(tenant);
    }

    fn older(&self, tenant: usize) -> State {
        let history = self.tenants[tenant].history.borrow();
        let at = self.draw(history.states.len());
        history.states[at].clone().beside(history.states.last().unwrap())
    }

    pub(super) fn copy_disk(&mut self) {
        let copy = self.disk.copy();
        let tenant = self.draw(TENANTS);
        self.tenants[tenant].copies.push(copy);
    }

    /// The disk has trouble of some kind for a while, or none any more.
    pub(super) fn trouble_disk(&mut self) {
        let trouble = match self.draw(6) {
            0 => Trouble { failing_reads: 1 + self.draw(3), ..Trouble::default() },
            1 => Trouble { room: Some(self.draw(4)), ..Trouble::default() },
            2 => Trouble { uncertain: true, ..Trouble::default() },
            3 => return self.disk.start_anew(),
            _ => Trouble::default(),
        };
        self.disk.set(trouble);
    }

    /// Loses or damages what is on disk; while the process is down, an older copy may also be put back.
    pub(super) fn disturb_disk(&mut self, down: bool) {
        let copies: Vec<Table> = self.tenants.iter().flat_map(|tenant| tenant.copies.clone()).collect();
        match self.draw(7) {
            0 => self.disk.replace(Table::new()),
            4 => self.disk.misfile(|bound| self.draw(bound)),
            1 if down && !copies.is_empty() => self.disk.replace(copies[self.draw(copies.len())].clone()),
            2 | 3 => self.disk.flip(|bound| self.draw(bound)),
            _ => {}
        }
    }

    /// The process ends, in an orderly way or not, and starts again, perhaps over an older or restored file.
    pub(super) fn restart(&mut self) {
        self.reads.clear();
        if self.draw(2) == 0 {
            for tenant in 0..TENANTS {
                self.settle(tenant);
            }
            self.cache.close();
        } else {
            self.disk.cut_power(|bound| self.draw(bound));
        }
        for tenant in 0..TENANTS {
            self.tenants[tenant].throughs.clear();
            self.tenants[tenant].remembered.clear();
            // A crash between commit and observer: the commit stands. Nobody was told, everybody may see it.
            if self.tenants[tenant].pending.take().is_some() {
                self.acknowledge(tenant);
            }
        }
        self.disturb_disk(true);
        for tenant in 0..TENANTS {
            match self.draw(8) {
                0 => self.roll_back(tenant),
                1 => {
                    let mut next = self.older(tenant);
                    self.lineages += 1;
                    next.lineage = [self.lineages; 16];
                    self.tenants[tenant].history.borrow_mut().push(next);
                    self.acknowledge(tenant);
                }
                _ => {}
            }
        }
        if self.draw(4) == 0 {
            self.install(u64::try_from(self.draw(BUILDS)).unwrap());
        }
        self.tally.add_cache(&self.cache);
        self.disk.set(Trouble::default());
        self.cache = open(&self.clock, &self.disk, self.memory_bytes, (self.build, self.defect));
        self.attach_all();
    }

    /// Another build of the program takes the place of the one that ended: a newer one, or the one before again.
    fn install(&mut self, build: u64) {
        self.tally.installed += u64::from(build != self.build);
        self.build = build;
        for tenant in 0..TENANTS {
            let next = State { build, ..self.latest(tenant) };
            self.tenants[tenant].history.borrow_mut().push(next);
            self.acknowledge(tenant);
        }
    }

    /// Somebody copied a file from another time, or another future, into place by hand: its history claims to go on.
    fn roll_back(&mut self, tenant: usize) {
        let present = self.latest(tenant);
        let mut history = self.tenants[tenant].history.borrow_mut();
        let same: Vec<&State> = history.states.iter().filter(|state| state.lineage == present.lineage).collect();
        let next = same[self.draw(same.len())].clone().beside(&present);
        history.push(next);
        drop(history);
        self.acknowledge(tenant);
    }

    pub(super) fn attach_all(&mut self) {
        for tenant in 0..TENANTS {
            self.cache.attach(&self.tenants[tenant].id.clone(), &self.seed_of(tenant));
        }
    }
}
