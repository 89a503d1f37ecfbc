//! The device that starts enclaves, behind the registers that QEMU has
//! (`tests/qemu/nitro-enclaves-pci.patch`): it executes the commands of the kernel's driver.
//!
//! Source of commands, fields and states: Linux, `drivers/virt/nitro_enclaves/ne_pci_dev.h`.
//! With which numbers Nitro's own device refuses a command is not known; those here are this
//! one's.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::enclave::{Enclave, Enclaves};
use super::memory::{Memory, Range};

/// Bytes of a request or a reply, and of a message with one.
const DATA: usize = 240;
const MESSAGE: usize = 4 + DATA;
/// Kinds of messages: from this on the driver has set the register ENABLE.
const ENABLE: u32 = 0x1_0000;
const REPLY: u32 = 0;
const EVENT: u32 = 1;
/// Where an image lies in an enclave's memory. The driver has this number too.
const IMAGE_OFFSET: u64 = 8 << 20;
/// What a device has unless a test says otherwise: an instance has at most four enclaves, and
/// how many regions of memory one has is not known.
const LIMITS: Limits = Limits {
    enclaves: 4,
    regions: 1024,
};
/// Between looks whether an enclave has ended.
const POLL: Duration = Duration::from_millis(20);

/// What the device has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The context identifier.
    pub cid: u32,
    /// Whether in debug mode.
    pub debug: bool,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The NUMA nodes that it is of.
    pub nodes: Vec<usize>,
    /// The CPUs.
    pub cpus: Vec<u32>,
}

/// How much of what a device has.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Enclaves at a time.
    pub enclaves: usize,
    /// Regions of memory of an enclave.
    pub regions: u64,
}

/// The device.
#[derive(Debug, Clone)]
pub struct Device(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    memory: Memory,
    enclaves: Enclaves,
    /// What images may be started.
    images: Vec<Vec<u8>>,
    limits: Limits,
    slots: BTreeMap<u64, Slot>,
    last_slot: u64,
    started: Vec<Started>,
    faults: Vec<String>,
    driver: Option<UnixStream>,
}

/// An enclave, from the driver's first command for it to the last.
#[derive(Debug, Default)]
struct Slot {
    regions: Vec<Range>,
    cpus: Vec<u32>,
    cid: u64,
    flags: u64,
    state: Life,
    enclave: Option<Enclave>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Life {
    #[default]
    Initial,
    Running,
    Stopped,
}

impl Life {
    const fn code(self) -> u16 {
        match self {
            Self::Initial => 0,
            Self::Running => 2,
            Self::Stopped => u16::MAX,
        }
    }
}

/// A command of the driver's.
#[derive(Debug, Clone, Copy)]
enum Command {
    Start { cid: u64, flags: u64 },
    Stop,
    Free,
    AddMemory(Range),
    AddCpu(u32),
    Info,
}

/// The answer to one.
#[derive(Debug, Default)]
struct Reply {
    slot: u64,
    cid: u64,
    slots: u64,
    regions: u64,
    memory: u64,
    cpus: u64,
    flags: u64,
    state: u16,
}

impl Device {
    /// A device whose enclaves have images of these.
    pub(super) fn new(memory: Memory, enclaves: Enclaves, images: Vec<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(State {
            memory,
            enclaves,
            images,
            limits: LIMITS,
            slots: BTreeMap::new(),
            last_slot: 0,
            started: Vec::new(),
            faults: Vec::new(),
            driver: None,
        })))
    }

    /// Serves the emulator that connects, until it ends.
    pub(super) fn serve(&self, listener: UnixListener) {
        let device = self.clone();
        thread::spawn(move || {
            if let Err(error) = device.run(&listener) {
                device.state().faults.push(format!("the device: {error}"));
            }
            device.state().slots.clear();
        });
    }

    /// What it has from now on; without limits, what devices usually have.
    pub fn limit(&self, limits: Option<Limits>) {
        self.state().limits = limits.unwrap_or(LIMITS);
    }

    /// What it has started so far.
    pub fn started(&self) -> Vec<Started> {
        self.state().started.clone()
    }

    /// Enclaves that exist, whether they run or not.
    pub fn slots(&self) -> usize {
        self.state().slots.len()
    }

    /// What a driver must never do, and this one did.
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// Ends an enclave, as its own kernel may at any time.
    pub fn end(&self, cid: u32) {
        let mut state = self.state();
        let mut slots = state.slots.values_mut();
        if let Some(slot) = slots.find(|slot| slot.cid == u64::from(cid)) {
            // Who watches it tells the driver.
            if let Some(enclave) = &mut slot.enclave {
                enclave.kill();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, listener: &UnixListener) -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        self.state().driver = Some(stream.try_clone()?);
        let mut message = [0; MESSAGE];
        loop {
            match stream.read_exact(&mut message) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            let (kind, request) = split(&message);
            if kind >= ENABLE {
                // Whatever it was enabled for, the driver begins anew.
                self.state().slots.clear();
                continue;
            }
            let mut state = self.state();
            let answer = state.execute(kind, request);
            let running = answer.as_ref().ok().filter(|_| kind == 1);
            if let Some(reply) = running {
                self.watch(reply.slot);
            }
            state.send(REPLY, &encode(&answer))?;
        }
    }

    /// Tells the driver when an enclave ends by itself.
    fn watch(&self, id: u64) {
        let device = self.clone();
        thread::spawn(move || {
            loop {
                thread::park_timeout(POLL);
                let mut state = device.state();
                let Some(slot) = state.slots.get_mut(&id) else {
                    return;
                };
                if slot.state != Life::Running {
                    return;
                }
                if slot.enclave.as_mut().is_some_and(Enclave::has_ended) {
                    slot.state = Life::Stopped;
                    let told = state.send(EVENT, &[0; DATA]);
                    if let Err(error) = told {
                        state
                            .faults
                            .push(format!("the driver is not told: {error}"));
                    }
                    return;
                }
            }
        });
    }
}

impl State {
    fn send(&mut self, kind: u32, data: &[u8; DATA]) -> io::Result<()> {
        let mut message = Vec::with_capacity(MESSAGE);
        message.extend(kind.to_le_bytes());
        message.extend(data);
        let Some(driver) = &mut self.driver else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        driver.write_all(&message)
    }

    fn execute(&mut self, number: u32, request: &[u8]) -> Result<Reply, Errno> {
        let id = word(request, 0);
        let command = match number {
            1 => Command::Start {
                cid: word(request, 1),
                flags: word(request, 2),
            },
            3 => Command::Stop,
            4 => return self.allocate(),
            5 => Command::Free,
            6 => Command::AddMemory(Range {
                start: word(request, 1),
                size: word(request, 2),
            }),
            // Half a word.
            7 => Command::AddCpu(u32::try_from(word(request, 1)).map_err(|_| Errno::EINVAL)?),
            8 => {
                return Ok(Reply {
                    slots: self.slots.len() as u64,
                    ..Reply::default()
                });
            }
            10 => Command::Info,
            _ => {
                self.faults.push(format!("the command {number}"));
                return Err(Errno::ENOSYS);
            }
        };
        if !self.slots.contains_key(&id) {
            self.faults.push(format!("{command:?} for the slot {id}"));
            return Err(Errno::EINVAL);
        }
        match command {
            Command::Start { cid, flags } => self.start(id, cid, flags)?,
            Command::AddMemory(range) => self.add_memory(id, range)?,
            Command::AddCpu(cpu) => self.add_cpu(id, cpu)?,
            Command::Stop => self.stop(id),
            Command::Free => {
                if self
                    .slots
                    .remove(&id)
                    .is_some_and(|slot| slot.state == Life::Running)
                {
                    self.faults.push("a running enclave is freed".to_owned());
                }
            }
            Command::Info => {}
        }
        let slot = self.slots.get(&id);
        Ok(Reply {
            slot: id,
            ..slot.map_or_else(Reply::default, Slot::describe)
        })
    }

    fn allocate(&mut self) -> Result<Reply, Errno> {
        if self.slots.len() >= self.limits.enclaves {
            return Err(Errno::ENOSPC);
        }
        self.last_slot += 1;
        self.slots.insert(self.last_slot, Slot::default());
        Ok(Reply {
            slot: self.last_slot,
            regions: self.limits.regions,
            ..Reply::default()
        })
    }

    fn add_memory(&mut self, id: u64, range: Range) -> Result<(), Errno> {
        let known = self.slots.values().flat_map(|slot| &slot.regions);
        let is_taken = known.copied().any(|region| region.meets(range));
        if is_taken || self.memory.node(range).is_none() {
            self.faults.push(format!("{range:?} is given as memory"));
            return Err(Errno::EFAULT);
        }
        let slot = self.slots.get_mut(&id).ok_or(Errno::EINVAL)?;
        slot.regions.push(range);
        Ok(())
    }

    fn add_cpu(&mut self, id: u64, cpu: u32) -> Result<(), Errno> {
        if self.slots.values().any(|slot| slot.cpus.contains(&cpu)) {
            self.faults.push(format!("the CPU {cpu} is given twice"));
            return Err(Errno::EBUSY);
        }
        let slot = self.slots.get_mut(&id).ok_or(Errno::EINVAL)?;
        slot.cpus.push(cpu);
        Ok(())
    }

    /// Starts what lies in the memory, if it is one of the images.
    fn start(&mut self, id: u64, cid: u64, flags: u64) -> Result<(), Errno> {
        let cid = u32::try_from(cid).map_err(|_| Errno::EINVAL)?;
        let is_taken = |slot: &Slot| slot.state == Life::Running && slot.cid == u64::from(cid);
        if self.slots.values().any(is_taken) {
            return Err(Errno::EADDRINUSE);
        }
        let slot = self.slots.get(&id).ok_or(Errno::EINVAL)?;
        let images = self.images.iter();
        let mut images = images.filter(|image| {
            let found = slot.read(&self.memory, IMAGE_OFFSET, image.len() as u64);
            found.is_some_and(|found| found == **image)
        });
        let image = images.next().ok_or(Errno::ENOEXEC)?;
        let memory_mib = slot.regions.iter().map(|range| range.size).sum::<u64>() >> 20;
        let enclave = self
            .enclaves
            .start(cid, image, memory_mib, slot.cpus.len())
            .map_err(|error| {
                self.faults
                    .push(format!("an enclave cannot be started: {error:#}"));
                Errno::EIO
            })?;
        let nodes = slot
            .regions
            .iter()
            .filter_map(|range| self.memory.node(*range));
        let mut nodes: Vec<_> = nodes.collect();
        nodes.dedup();
        self.started.push(Started {
            cid,
            debug: flags & 1 == 1,
            memory_mib,
            nodes,
            cpus: slot.cpus.clone(),
        });
        let slot = self.slots.get_mut(&id).ok_or(Errno::EINVAL)?;
        slot.cid = cid.into();
        slot.flags = flags;
        slot.state = Life::Running;
        slot.enclave = Some(enclave);
        Ok(())
    }

    fn stop(&mut self, id: u64) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.state = Life::Stopped;
            // It ends when it is dropped.
            slot.enclave = None;
        }
    }
}

impl Slot {
    /// Bytes of the enclave's memory, which is its regions one after the other.
    fn read(&self, memory: &Memory, offset: u64, size: u64) -> Option<Vec<u8>> {
        let (mut skip, mut left) = (offset, size);
        let mut bytes = Vec::new();
        for region in &self.regions {
            if skip >= region.size {
                skip -= region.size;
                continue;
            }
            let part = Range {
                start: region.start + skip,
                size: left.min(region.size - skip),
            };
            bytes.extend(memory.read(part).ok()?);
            (skip, left) = (0, left - part.size);
            if left == 0 {
                return Some(bytes);
            }
        }
        None
    }

    fn describe(&self) -> Reply {
        Reply {
            cid: self.cid,
            regions: self.regions.len() as u64,
            memory: self.regions.iter().map(|range| range.size).sum(),
            cpus: self.cpus.len() as u64,
            flags: self.flags,
            state: self.state.code(),
            ..Reply::default()
        }
    }
}

/// A message's kind and data.
fn split(message: &[u8; MESSAGE]) -> (u32, &[u8]) {
    let (kind, data) = message.split_at(4);
    (kind.try_into().map_or(u32::MAX, u32::from_le_bytes), data)
}

/// A request's field.
fn word(data: &[u8], number: usize) -> u64 {
    let bytes = data.get(number * 8..number * 8 + 8);
    bytes.map_or(0, |bytes| bytes.try_into().map_or(0, u64::from_le_bytes))
}

fn encode(answer: &Result<Reply, Errno>) -> [u8; DATA] {
    let none = Reply::default();
    let (code, reply) = match answer {
        Ok(reply) => (0, reply),
        Err(error) => (-(*error as i32), &none),
    };
    let words = [
        u64::from(code.cast_unsigned()),
        reply.slot,
        reply.cid,
        reply.slots,
        reply.regions,
        reply.memory,
        reply.cpus,
        reply.flags,
        reply.state.into(),
    ];
    let mut data = [0; DATA];
    for (field, word) in data.chunks_exact_mut(8).zip(words) {
        field.copy_from_slice(&word.to_le_bytes());
    }
    data
}
