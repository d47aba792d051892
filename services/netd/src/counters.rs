//! What is counted, for `cofferdam events --stats` and a person who looks for lost packets.

/// Counts of a sandbox's network.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    /// Frames and packets that are none, or lie about themselves.
    pub broken: u64,
    /// Packets for somebody else.
    pub foreign: u64,
    /// Pieces that came, wholes that they made, pieces given up.
    pub pieces: u64,
    pub whole: u64,
    pub pieces_lost: u64,
    /// Packets that the Sentry had no room for.
    pub no_room: u64,
    /// Frames for packet sockets that the Sentry had no room for.
    pub frames_lost: u64,
    /// Packets to neighbours that do not answer, or too many for one that has not answered yet.
    pub no_neighbour: u64,
    /// Packets to where no route leads.
    pub no_route: u64,
}

impl Counters {
    /// With their names.
    pub fn list(&self) -> Vec<(String, u64)> {
        [
            ("packets_broken", self.broken),
            ("packets_foreign", self.foreign),
            ("fragments_received", self.pieces),
            ("fragments_reassembled", self.whole),
            ("fragments_lost", self.pieces_lost),
            ("packets_without_room", self.no_room),
            ("frames_without_room", self.frames_lost),
            ("packets_without_neighbour", self.no_neighbour),
            ("packets_without_route", self.no_route),
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .to_vec()
    }
}
