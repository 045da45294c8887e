//! VMX, virtualization of Intel processors (SDM 3C, "Introduction to Virtual Machine Extensions" and what follows).

pub mod ept;
