//! One block of four transactions is proven once and shared: its prefixes give blocks of one, two and three.

mod blocks;
mod circuit;
mod fixture;
mod happy;
mod published;
mod tamper;
