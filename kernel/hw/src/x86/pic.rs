//! 8259A interrupt controllers (Intel 8259A data sheet), which a kernel with I/O APICs only moves out of the way.

constants! { u16 {
    MASTER_COMMAND  0x20    "First controller: ICW1, OCW2, OCW3."
    MASTER_DATA     0x21    "First controller: ICW2 to ICW4, then the mask."
    SLAVE_COMMAND   0xa0    "Second controller: the same."
    SLAVE_DATA      0xa1    "Second controller: the same."
}}

constants! { u8 {
    ICW1_INIT       0x11    "Initialize: cascaded, edge, ICW4 follows."
    ICW3_MASTER     0x04    "The second controller is at input 2."
    ICW3_SLAVE      0x02    "The same, as the second controller's identity."
    ICW4_8086       0x01    "8086 mode, normal end of interrupt."
    MASK_ALL        0xff    "Mask: hold all inputs back."
}}
