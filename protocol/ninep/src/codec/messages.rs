//! Every message: its number and its fields, in the order of the wire.

use super::types::{Attr, Fids, Lock, LockKind, Names, Qid, Qids, SetAttr, StatFs, Steps};
use super::wire::{Data, DataSync, DecodeError, Field, Reader, begin, finish};

macro_rules! messages {
    ($(#[$meta:meta])* $enum:ident { $($(#[$vmeta:meta])* $code:literal $name:ident { $($field:ident: $ty:ty),* $(,)? })* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum $enum<'a> { $($(#[$vmeta])* $name { $($field: $ty),* },)* }

        impl<'a> $enum<'a> {
            /// Every number of this direction, with its message's name.
            pub const ALL: &'static [(u8, &'static str)] = &[$(($code, stringify!($name))),*];

            /// The type byte.
            pub fn code(&self) -> u8 {
                match self { $(Self::$name { .. } => $code,)* }
            }

            /// Reads a whole packet: its tag and the message.
            pub fn decode(packet: &'a [u8]) -> Result<(u16, Self), DecodeError> {
                let (code, tag, mut r) = Reader::message(packet)?;
                let message = match code {
                    $($code => Self::$name { $($field: <$ty as Field<'a>>::get(&mut r)?),* },)*
                    _ => return Err(DecodeError::Unknown { code, tag }),
                };
                r.end()?;
                Ok((tag, message))
            }

            /// Writes a whole packet into `to` (cleared first).
            pub fn encode(&self, tag: u16, to: &mut Vec<u8>) {
                begin(to, self.code(), tag);
                match self { $(Self::$name { $($field),* } => { $($field.put(to);)* })* }
                finish(to);
            }
        }
    };
}

messages! {
    /// What a client asks.
    Request {
        /// Figures of the file system.
        8 StatFs { fid: u32 }
        /// Opens the file that a fid stands for; `flags` as open(2) of Linux on x86-64.
        12 Lopen { fid: u32, flags: u32 }
        /// Creates and opens; the fid becomes the new file.
        14 Lcreate { fid: u32, name: &'a [u8], flags: u32, mode: u32, gid: u32 }
        /// Makes a symbolic link.
        16 Symlink { dir: u32, name: &'a [u8], target: &'a [u8], gid: u32 }
        /// Makes a node.
        18 Mknod { dir: u32, name: &'a [u8], mode: u32, major: u32, minor: u32, gid: u32 }
        /// Renames what a fid stands for.
        20 Rename { fid: u32, dir: u32, name: &'a [u8] }
        /// The target of a symbolic link.
        22 Readlink { fid: u32 }
        /// Attributes.
        24 Getattr { fid: u32, mask: u64 }
        /// Changes attributes.
        26 Setattr { fid: u32, attr: SetAttr }
        /// A new fid for the value of an extended attribute (empty name: the list of names).
        30 XattrWalk { fid: u32, newfid: u32, name: &'a [u8] }
        /// Makes the fid take the value of an extended attribute, set when it is clunked.
        32 XattrCreate { fid: u32, name: &'a [u8], size: u64, flags: u32 }
        /// Entries of a directory.
        40 Readdir { fid: u32, offset: u64, count: u32 }
        /// To the disk.
        50 Fsync { fid: u32, datasync: DataSync }
        /// Sets a record lock.
        52 Lock { fid: u32, kind: LockKind, flags: u32, range: Lock, client: &'a [u8] }
        /// Which lock stands in the way.
        54 Getlock { fid: u32, kind: LockKind, range: Lock, client: &'a [u8] }
        /// Makes a hard link.
        70 Link { dir: u32, fid: u32, name: &'a [u8] }
        /// Makes a directory.
        72 Mkdir { dir: u32, name: &'a [u8], mode: u32, gid: u32 }
        /// Renames by name.
        74 Renameat { olddir: u32, oldname: &'a [u8], newdir: u32, newname: &'a [u8] }
        /// Removes by name; flag 0x200 (AT_REMOVEDIR) for directories.
        76 Unlinkat { dir: u32, name: &'a [u8], flags: u32 }
        /// Opens the connection.
        100 Version { msize: u32, version: &'a [u8] }
        /// Asks for authentication.
        102 Auth { afid: u32, uname: &'a [u8], aname: &'a [u8], uid: u32 }
        /// A fid for a tree's root.
        104 Attach { fid: u32, afid: u32, uname: &'a [u8], aname: &'a [u8], uid: u32 }
        /// Cancels a request.
        108 Flush { oldtag: u16 }
        /// A fid for what lies along the names.
        110 Walk { fid: u32, newfid: u32, names: Names<'a> }
        /// Bytes of a file.
        116 Read { fid: u32, offset: u64, count: u32 }
        /// Bytes to a file.
        118 Write { fid: u32, offset: u64, data: Data<'a> }
        /// Gives a fid back.
        120 Clunk { fid: u32 }
        /// Removes the file and gives the fid back.
        122 Remove { fid: u32 }
        /// Extension: [`Request::Walk`] with the attributes of every step; no name: of the file itself, too. The new
        /// fid is made only when every step was reached.
        200 WalkGetattr { fid: u32, newfid: u32, names: Names<'a> }
        /// Extension: [`Request::Readdir`] with attributes.
        202 ReaddirAttr { fid: u32, offset: u64, count: u32 }
        /// Extension: gives many fids back; unknown ones are passed over.
        204 ClunkBatch { fids: Fids }
        /// Extension: file to window, straight.
        206 Fill { fid: u32, offset: u64, count: u32, window: u64 }
        /// Extension: window to file, straight.
        208 Spill { fid: u32, offset: u64, count: u32, window: u64 }
        /// Extension: walks one name, opens it for reading where it is a regular file, and fills its first bytes.
        210 OpenFill { fid: u32, newfid: u32, name: &'a [u8], count: u32, window: u64 }
        /// Extension: whether the stdio file is a terminal, and its size.
        212 TtySize { fid: u32 }
        /// Extension: fallocate(2) on an open file.
        214 Allocate { fid: u32, mode: u32, offset: u64, length: u64 }
        /// Extension: [`Request::Renameat`] with RENAME_NOREPLACE or RENAME_EXCHANGE (renameat2(2)).
        216 Renameat2 { olddir: u32, oldname: &'a [u8], newdir: u32, newname: &'a [u8], flags: u32 }
        /// Extension: [`Request::Fill`] into pages of the window that were filled before: the host copies straight into
        /// them, where for new pages the way by a buffer is shorter.
        218 Refill { fid: u32, offset: u64, count: u32, window: u64 }
    }
}

messages! {
    /// What a server answers.
    Reply {
        /// It failed.
        7 Lerror { errno: u32 }
        9 StatFs { statfs: StatFs }
        13 Lopen { qid: Qid, iounit: u32 }
        15 Lcreate { qid: Qid, iounit: u32 }
        17 Symlink { qid: Qid }
        19 Mknod { qid: Qid }
        21 Rename {}
        23 Readlink { target: &'a [u8] }
        25 Getattr { attr: Attr }
        27 Setattr {}
        31 XattrWalk { size: u64 }
        33 XattrCreate {}
        /// Entries in the form that [`super::DirEntries`] reads.
        41 Readdir { data: Data<'a> }
        51 Fsync {}
        /// 0 done, 1 somebody else's lock stands in the way, 2 error, 3 grace period.
        53 Lock { status: u8 }
        55 Getlock { kind: LockKind, range: Lock, client: &'a [u8] }
        71 Link {}
        73 Mkdir { qid: Qid }
        75 Renameat {}
        77 Unlinkat {}
        101 Version { msize: u32, version: &'a [u8] }
        103 Auth { qid: Qid }
        105 Attach { qid: Qid }
        109 Flush {}
        111 Walk { qids: Qids }
        117 Read { data: Data<'a> }
        119 Write { count: u32 }
        121 Clunk {}
        123 Remove {}
        /// Attributes of each step reached (of the file itself where no name was given). Fewer than asked: `errno` says
        /// why the next one was not, and there is no new fid.
        201 WalkGetattr { errno: u32, steps: Steps }
        /// Entries in the form that [`super::DirEntries`] reads, each with attributes.
        203 ReaddirAttr { data: Data<'a> }
        205 ClunkBatch {}
        207 Fill { count: u32 }
        209 Spill { count: u32 }
        /// `opened` is 1 where the file is regular and now open; `errno` why not, where it is regular and is not.
        211 OpenFill { attr: Attr, opened: u8, errno: u32, count: u32 }
        213 TtySize { terminal: u8, rows: u16, columns: u16 }
        215 Allocate {}
        217 Renameat2 {}
        219 Refill { count: u32 }
    }
}
