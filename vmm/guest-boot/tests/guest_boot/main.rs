//! What each boot protocol finds in memory and registers, and what is refused with which words.

mod bzimage;
mod elf;
mod refusals;
mod support;
