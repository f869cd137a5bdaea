//! What goes wrong, and when: power, processes, disks, the network, clocks.

use wk_proto::NodeId;
use wk_replica::Input;
use wk_store::Disk as _;
use wk_store::disk::Faults;

use crate::net::Weather;
use crate::plan::Scenario;
use crate::world::{Event, World};

/// How long a lasting fault of a disk lasts at most, in ms.
const SICK_MS: u64 = 1_500;
/// Longest time for a planned stop, in ms.
const STOP_MS: u64 = 500;
/// The log tells damage from a torn tail once something written later is durable: the sync under way, and one more.
const DOUBT_SYNCS: u32 = 2;

impl World {
    /// Starts a node's process.
    pub(crate) fn boot(&mut self, id: NodeId) {
        let (now, wall) = (self.now, self.wall(id));
        let plan = self.plan.clone();
        let node = self.node(id);
        if node.up.is_some() || node.lost.is_some() {
            return;
        }
        if let Err(error) = node.boot(&plan, now, wall) {
            return self.boot_failed(id, error);
        }
        let life = node.life;
        self.note(format_args!("{id} up"));
        let ms = self.dice.between(1, self.plan.checkpoint_ms);
        self.after_us(ms * 1_000, Event::Freeze(id, life));
        self.turn(id);
        self.arm(id);
    }

    fn boot_failed(&mut self, id: NodeId, error: wk_store::Error) {
        self.note(format_args!("{id} does not start: {error}"));
        let node = self.node(id);
        if node.disk.is_off() {
            return self.power_loss(id);
        }
        if node.damaged {
            node.lost = Some(error.to_string());
        } else if node.may_fail() {
            self.after_us(300_000, Event::Boot(id));
        } else {
            self.fail(format!("{id} does not start: {error}"));
        }
    }

    /// A write or sync failed: nothing is tried again on the same files; the process ends, and starts anew from the disk.
    pub(crate) fn disk_failed(&mut self, id: NodeId, error: &wk_store::Error) {
        self.note(format_args!("{id} disk: {error}"));
        let node = &self.nodes[&id];
        if node.disk.is_off() {
            return self.power_loss(id);
        }
        if node.damaged {
            return self.damage_found(id, error.to_string());
        }
        if !node.may_fail() {
            return self.fail(format!("{id} cannot write: {error}"));
        }
        self.kill(id);
    }

    /// A flipped bit was noticed: the node stops, as it must.
    pub(crate) fn damage_found(&mut self, id: NodeId, cause: String) {
        self.node(id).lost = Some(cause);
        self.kill(id);
    }

    /// The process is gone; what it wrote is still in the page cache.
    pub(crate) fn kill(&mut self, id: NodeId) {
        self.note(format_args!("{id} killed"));
        let node = self.node(id);
        node.kill();
        let faults = Faults {
            fail_sync_at: None,
            ..node.faults.clone()
        };
        node.set_faults(faults);
        self.after_death(id);
        self.restart_later(id);
    }

    /// The machine is gone, with some of what was not synced.
    pub(crate) fn power_loss(&mut self, id: NodeId) {
        self.note(format_args!("{id} lost its power"));
        let seed = self.dice.roll();
        self.node(id).cut_power(seed);
        self.after_death(id);
        self.restart_later(id);
    }

    /// A planned stop: leadership is given away, then the process ends.
    fn stop(&mut self, id: NodeId) {
        let ms = self.dice.between(1, STOP_MS);
        let life = self.nodes[&id].life;
        self.note(format_args!("{id} stops in {ms} ms"));
        self.input(id, Input::Drain);
        self.after_us(ms * 1_000, Event::Stopped(id, life));
    }

    fn restart_later(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.doubt > 0 {
            node.lost
                .get_or_insert_with(|| "a bit of its newest log entries flipped".into());
        }
        let ms = match self.dice.below(3) {
            0 => self.dice.between(0, 20),
            _ => self.dice.between(0, self.plan.down_ms),
        };
        self.after_us(ms * 1_000, Event::Boot(id));
    }

    /// The next fault.
    pub(crate) fn fault(&mut self) {
        if !self.storms {
            return;
        }
        let ms = self.dice.between(1, self.plan.calm_ms);
        self.after_us(ms * 1_000, Event::Fault);
        let ids = self.ids();
        let id = *self.dice.pick(&ids);
        match self.plan.scenario {
            Scenario::OneNode => self.disk_or_process_fault(id),
            Scenario::ThreeNodes if self.dice.chance(45) => self.disk_or_process_fault(id),
            Scenario::ThreeNodes => self.net_fault(id),
        }
    }

    fn disk_or_process_fault(&mut self, id: NodeId) {
        let is_up = self.nodes[&id].up.is_some();
        match self.dice.below(12) {
            0..3 => self.lose_power_soon(id),
            3 if is_up => self.power_loss(id),
            4 | 5 if is_up => self.kill(id),
            6 => self.fail_soon(id),
            7 => self.fill_disk(id),
            8 => self.slow_disk(id),
            9 => {
                let skew = self.dice.below(5_000);
                self.note(format_args!("{id} clock +{skew} ms"));
                self.node(id).skew_ms = skew;
            }
            10 if self.plan.nodes > 1 => self.all_lose_power(),
            11 if is_up => self.stop(id),
            _ => {}
        }
    }

    /// During one of the next operations of the disk, whatever it is.
    fn lose_power_soon(&mut self, id: NodeId) {
        let ahead = match self.dice.below(3) {
            0 => self.dice.between(1, 6),
            1 => self.dice.between(1, 40),
            _ => self.dice.between(1, 300),
        };
        let node = self.node(id);
        let at = node.disk.operations() + ahead;
        let faults = Faults {
            power_loss_at: Some(at),
            ..node.faults.clone()
        };
        node.set_faults(faults);
        self.note(format_args!("{id} will lose its power at operation {at}"));
    }

    fn fail_soon(&mut self, id: NodeId) {
        let ahead = self.dice.between(1, 20);
        let node = self.node(id);
        let faults = Faults {
            fail_sync_at: Some(node.disk.syncs() + ahead),
            ..node.faults.clone()
        };
        node.set_faults(faults);
        self.note(format_args!("{id} a sync will fail"));
    }

    fn fill_disk(&mut self, id: NodeId) {
        let free = *self.dice.pick(&[0, 4_096, 100_000, 300_000]);
        let node = self.node(id);
        let Ok((space, total)) = node.disk.space() else {
            return;
        };
        let faults = Faults {
            capacity: Some(total - space + free),
            ..node.faults.clone()
        };
        node.set_faults(faults);
        self.note(format_args!("{id} disk has {free} bytes left"));
        self.mend_later(id);
    }

    fn slow_disk(&mut self, id: NodeId) {
        let us = self.dice.between(10_000, 500_000);
        self.note(format_args!("{id} disk takes {us} µs"));
        self.node(id).sync_us = (us / 2, us);
        self.mend_later(id);
    }

    fn mend_later(&mut self, id: NodeId) {
        let ms = self.dice.between(1, SICK_MS);
        self.after_us(ms * 1_000, Event::Mend(id));
    }

    /// The disk is as fast and as large as it was.
    pub(crate) fn mend(&mut self, id: NodeId) {
        let sync_us = self.plan.sync_us;
        let node = self.node(id);
        node.sync_us = sync_us;
        let faults = Faults {
            capacity: None,
            ..node.faults.clone()
        };
        node.set_faults(faults);
        self.note(format_args!("{id} mended"));
    }

    /// One bit of one file is not what was written any more.
    pub(crate) fn flip(&mut self) {
        let ids = self.ids();
        let id = *self.dice.pick(&ids);
        let Some((_, folder)) = self.plan.flip else {
            return;
        };
        let roll = self.dice.roll();
        let node = self.node(id);
        if node.up.is_none() || node.damaged {
            return;
        }
        let names = node.disk.list(folder).unwrap_or_default();
        let Some(name) = names.get(roll as usize % names.len().max(1)) else {
            return;
        };
        let path = format!("{folder}/{name}");
        let len = node.disk.open(&path, false).and_then(|file| file.len());
        let bits = len.unwrap_or(0) * 8;
        let bit = (roll >> 16) % bits.max(1);
        if bits == 0 || node.disk.flip_bit(&path, bit).is_err() {
            return;
        }
        node.damaged = true;
        node.doubt = if folder == "wal" { DOUBT_SYNCS } else { 0 };
        self.note(format_args!("{id} bit {bit} of {path} flips"));
    }

    fn all_lose_power(&mut self) {
        for id in self.ids() {
            if self.nodes[&id].up.is_some() {
                self.power_loss(id);
            }
        }
    }

    fn net_fault(&mut self, id: NodeId) {
        let others: Vec<NodeId> = self.ids().into_iter().filter(|o| *o != id).collect();
        match self.dice.below(9) {
            0 => {
                for other in others {
                    self.net.cut(id, other);
                    self.net.cut(other, id);
                }
                self.note(format_args!("{id} is alone"));
            }
            1 => {
                let other = *self.dice.pick(&others);
                self.net.cut(id, other);
                self.net.cut(other, id);
                self.note(format_args!("{id} and {other} are cut off"));
            }
            2 => {
                let other = *self.dice.pick(&others);
                self.net.cut(id, other);
                self.note(format_args!("{id} does not reach {other}"));
            }
            3 => {
                for other in others {
                    self.net.cut(id, other);
                }
                self.note(format_args!("{id} is mute"));
            }
            4..6 => self.change_weather(),
            _ => {
                self.net.heal();
                self.note(format_args!("no cuts"));
            }
        }
    }

    fn change_weather(&mut self) {
        let dice = &mut self.dice;
        let weather = Weather {
            drop_percent: *dice.pick(&[0, 0, 5, 30]),
            double_percent: *dice.pick(&[0, 0, 10, 30]),
            delay_us: *dice.pick(&[100, 100, 2_000, 50_000]),
            jitter_us: *dice.pick(&[50, 1_000, 20_000, 150_000]),
        };
        self.net.weather = weather;
        self.note(format_args!("{weather:?}"));
    }

    /// Ends all faults and starts what is down.
    pub(crate) fn heal(&mut self) {
        self.storms = false;
        self.net.heal();
        self.net.weather = Weather::default();
        for id in self.ids() {
            self.node(id).set_faults(Faults::default());
            self.mend(id);
            self.node(id).skew_ms = 0;
            self.boot(id);
        }
    }
}
