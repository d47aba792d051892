//! Layout of a stub's address space and slots.
//!
//! Where things lie in a stub and what is said in its slots. Included by the stub's own source as well, so: constants only.
//!
//! Above what a container may map (`GUEST_TOP`) a stub has its text, its slots, and what the host kernel put there at exec
//! (a small stack nobody uses any more, the vDSO and its data).

/// Address the stub is linked at; its text and data end below `STUB_BASE + STUB_SPAN`.
pub const STUB_BASE: u64 = 0x7d00_0000_0000;
/// Bytes of address space from `STUB_BASE` within which a call counts as the stub's own in the filter.
pub const STUB_SPAN: u64 = 0x1_0000;
/// Address at which slot 0 would be mapped; slot N is at `SLOTS + N * SLOT`, at the same offset in the slots memfd.
pub const SLOTS: u64 = 0x7d10_0000_0000;
/// Bytes a slot: a page of orders, the signal stack.
pub const SLOT: u64 = 0x8000;
/// Slots a process maps at once.
pub const GROUP: u64 = 8;
/// Offset of the signal stack in a slot, and its length.
pub const STACK: u64 = 0x1000;
/// Bytes of signal stack.
pub const STACK_LEN: u64 = SLOT - STACK;
/// Offset in a slot of the `ucontext` that a new thread starts from.
pub const START_CONTEXT: u64 = 0x2000;
/// Offset in a slot of the extended state that a new thread starts from.
pub const START_XSTATE: u64 = 0x2400;
/// Bytes an order takes: number, six arguments, and for a clone the address of the child's slot.
pub const ORDER: u64 = 64;
/// Orders that fit in a slot.
pub const MAX_ORDERS: usize = 60;

/// Offset in a slot of what a thread and the Sentry say to each other on the short way (see `notify/short.rs`).
pub const SHORT: u64 = 0xf00;
/// u32: what became of the call, one of the `SHORT_` states.
pub const SHORT_STATE: u64 = SHORT;
/// u32: whether the Sentry watches for calls.
pub const SHORT_WATCHED: u64 = SHORT + 4;
/// u64: the call's number; its six arguments follow.
pub const SHORT_CALL: u64 = SHORT + 8;
/// u64: its result.
pub const SHORT_RESULT: u64 = SHORT + 64;
/// u64: address of the `syscall` instruction that it stands for.
pub const SHORT_SITE: u64 = SHORT + 72;
/// No call.
pub const SHORT_IDLE: u32 = 0;
/// The thread asks.
pub const SHORT_POSTED: u32 = 1;
/// The Sentry has taken it.
pub const SHORT_TAKEN: u32 = 2;
/// The result is there.
pub const SHORT_DONE: u32 = 3;
/// It is to go the long way.
pub const SHORT_LONG: u32 = 4;
/// It takes long: the thread is to report and sleep.
pub const SHORT_SLEEP: u32 = 5;
/// How often a thread looks whether its call was taken, and then whether it is done, before it goes the long way.
pub const SHORT_LOOKS: u32 = 400;

/// The call by which a stub reports: (kind, siginfo, ucontext). A number no kernel has.
pub const REPORT: u64 = 0x7000_0001;
/// Kind of report: orders done, second argument their result.
pub const DONE: u64 = 1000;
/// Kind of report: a new thread.
pub const START: u64 = 1001;
/// Kind of report: a call on the short way takes long.
pub const ASLEEP: u64 = 1002;

/// In the address of the child's slot that goes with an order to clone: the child must map its group of slots first.
pub const MARK_MAPS: u64 = 1;
/// The same: the child sets the base of `%gs` to its slot.
pub const MARK_GS: u64 = 2;

/// The same: the child leaves its parent's process group for one of its own, before it reports.
pub const MARK_GROUP: u64 = 4;

/// The signal by which the Sentry interrupts a thread.
pub const INTERRUPT: i32 = 10;

/// Descriptor of the slots memfd in every stub.
pub const SLOTS_FD: i32 = 3;
/// Descriptor of the first host window in every stub; the others follow.
pub const WINDOW_FD: i32 = 4;
/// Number of host windows' descriptors: each window for writing, then each again for reading only.
pub const WINDOWS: i32 = 4;
/// Descriptor of the starter's pipe to the Sentry: process id and wait status of each stub process that ended.
pub const PIPE_FD: i32 = WINDOW_FD + WINDOWS;

/// Offset in slot 1 (free in the template's group) of what Sentry and starter tell each other at the start.
pub const BOOT: u64 = SLOT;
/// u64 at BOOT: set by the template to 1 + its listener descriptor, or to minus an errno.
pub const BOOT_LISTENER: u64 = BOOT;
/// u64: process id of the template as the starter sees it.
pub const BOOT_TEMPLATE: u64 = BOOT + 8;
/// u64: address of the vDSO.
pub const BOOT_VDSO: u64 = BOOT + 16;
/// u64: 1 for notify (the template installs the filter), 2 for ptrace (the template sleeps until it is traced).
pub const BOOT_MODE: u64 = BOOT + 24;
/// u64: number of instructions of the starter's own filter, 0 for none; they follow at BOOT_STARTER_FILTER + 8.
pub const BOOT_STARTER_FILTER: u64 = BOOT + 32;
/// u64: number of instructions of the stubs' filter; they follow at BOOT_STUB_FILTER + 8.
pub const BOOT_STUB_FILTER: u64 = BOOT + 0x4000;
/// Five u64: addresses in the stub's text of the short way: its start, where it has posted its call, where the call is
/// done, its last instruction, its end.
pub const BOOT_SHORT: u64 = BOOT + 0x3900;
/// u64: set by the starter once it is confined.
pub const BOOT_CONFINED: u64 = BOOT + 40 + 0x3800;
