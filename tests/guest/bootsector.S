# A whole operating system for a trace: copies 4 KiB of its disk with the BIOS and powers off.
#   as --32 bootsector.S -o b.o && objcopy -O binary b.o boot.raw && truncate -s 1M boot.raw
        .code16
        .equ BASE, 0x7c00
        .globl _start
_start: xor %ax, %ax
        mov %ax, %ds
        mov %ax, %ss
        mov $0x7c00, %sp
        mov $BASE + packet - _start, %si
        mov $0x42, %ah                  # extended read: the first 8 sectors to 0x8000
        int $0x13
        jc off
        notw 0x8010                     # a change, so that the copy is no copy
        movl $16, BASE + lba - _start
        mov $BASE + packet - _start, %si
        mov $0x4300, %ax                # extended write: to sector 16
        int $0x13
        jc off
        mov $BASE + packet - _start, %si
        mov $0x42, %ah                  # and read again
        int $0x13
off:    mov $0x604, %dx                 # PIIX4 PMCNTRL: SLP_EN, SLP_TYP of S5
        mov $0x2000, %ax
        out %ax, %dx
1:      hlt
        jmp 1b

        .balign 4
packet: .byte 16, 0                     # INT 13h extensions: disk address packet
        .word 8, 0x8000, 0
lba:    .quad 0

        .org 510
        .word 0xaa55
