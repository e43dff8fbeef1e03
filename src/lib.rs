//! thrifty-p2p.
