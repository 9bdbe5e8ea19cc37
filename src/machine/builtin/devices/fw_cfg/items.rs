//! What there is to select: the numbered items, the files and their directory.

use std::collections::BTreeMap;

use super::bits::*;
use crate::base::{Error, Result};

/// `e820` entry type: RAM.
const E820_RAM: u32 = 1;

/// A file that firmware finds by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgFile {
    /// Its path, such as `etc/e820`: at most 55 bytes.
    pub name: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Whether firmware may write it by DMA.
    pub writable: bool,
}

impl FwCfgFile {
    /// A file that firmware only reads.
    pub fn new(name: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), data: data.into(), writable: false }
    }
}

/// What a board tells its firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfgConfig {
    /// Guest RAM, from address 0.
    pub ram_bytes: u64,
    /// CPUs.
    pub cpus: u16,
    /// Files, in any order.
    pub files: Vec<FwCfgFile>,
}

impl FwCfgConfig {
    /// What QEMU's `pc` tells about a machine without graphics, as far as it follows from RAM and
    /// CPUs: its ACPI and SMBIOS tables are not built here.
    pub fn pc(ram_bytes: u64, cpus: u16) -> Self {
        let mut e820 = 0u64.to_le_bytes().to_vec();
        e820.extend(ram_bytes.to_le_bytes());
        e820.extend(E820_RAM.to_le_bytes());
        let files = vec![
            FwCfgFile::new("bootorder", *b"\0"),
            FwCfgFile::new("etc/boot-fail-wait", u32::MAX.to_le_bytes()),
            FwCfgFile::new("etc/e820", e820),
            // S3 and S4 enabled (bit 7), with SLP_TYP 1 and 2; S5 is type 0.
            FwCfgFile::new("etc/system-states", [0x80, 0, 0, 0x81, 0x82, 0x80]),
        ];
        Self { ram_bytes, cpus, files }
    }

    /// Checks what the directory cannot express.
    ///
    /// # Errors
    /// A usage error: more files than there are selectors, a name too long, empty or given twice,
    /// or a file of 4 GiB.
    pub fn check(&self) -> Result<()> {
        if self.files.len() > usize::from(FW_CFG_FILE_SLOTS) {
            let text = format!("fw_cfg: {} files; it has {FW_CFG_FILE_SLOTS}", self.files.len());
            return Err(Error::usage(text));
        }
        for (index, file) in self.files.iter().enumerate() {
            let bad = |what: &str| Err(Error::usage(format!("fw_cfg file '{}' {what}", file.name)));
            if file.name.is_empty() || file.name.len() >= FW_CFG_MAX_FILE_PATH {
                return bad("needs a name of 1 to 55 bytes");
            }
            if u32::try_from(file.data.len()).is_err() {
                return bad("is of 4 GiB or more");
            }
            if self.files.iter().skip(index + 1).any(|other| other.name == file.name) {
                return bad("is given twice");
            }
        }
        Ok(())
    }
}

/// An item's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Whether DMA may write it.
    pub writable: bool,
}

/// All items, by selector. The selectors of files are given in the order of their names.
pub fn table(config: &FwCfgConfig) -> BTreeMap<u16, Item> {
    let cpus = config.cpus;
    // No NUMA node: the count, and a node for each CPU.
    let numa = vec![0; 8 * (1 + usize::from(cpus))];
    let mut items = BTreeMap::from([
        (FW_CFG_SIGNATURE, b"QEMU".to_vec()),
        (FW_CFG_ID, (FW_CFG_VERSION | FW_CFG_VERSION_DMA).to_le_bytes().to_vec()),
        (FW_CFG_UUID, vec![0; 16]),
        (FW_CFG_RAM_SIZE, config.ram_bytes.to_le_bytes().to_vec()),
        (FW_CFG_NOGRAPHIC, 1u16.to_le_bytes().to_vec()),
        (FW_CFG_NB_CPUS, cpus.to_le_bytes().to_vec()),
        (FW_CFG_NUMA, numa),
        (FW_CFG_BOOT_MENU, 0u16.to_le_bytes().to_vec()),
        (FW_CFG_MAX_CPUS, cpus.to_le_bytes().to_vec()),
        (FW_CFG_IRQ0_OVERRIDE, 1u32.to_le_bytes().to_vec()),
    ]);
    let mut files: Vec<&FwCfgFile> = config.files.iter().collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.truncate(usize::from(FW_CFG_FILE_SLOTS));
    items.insert(FW_CFG_FILE_DIR, directory(&files));
    let mut items: BTreeMap<u16, Item> =
        items.into_iter().map(|(key, data)| (key, Item { data, writable: false })).collect();
    items.extend(
        (FW_CFG_FILE_FIRST..)
            .zip(files)
            .map(|(key, file)| (key, Item { data: file.data.clone(), writable: file.writable })),
    );
    items
}

/// The directory: a count, then an entry for each file.
fn directory(files: &[&FwCfgFile]) -> Vec<u8> {
    let mut bytes = (files.len() as u32).to_be_bytes().to_vec();
    for (file, selector) in files.iter().zip(FW_CFG_FILE_FIRST..) {
        let end = bytes.len() + FW_CFG_FILE_ENTRY_BYTES;
        bytes.extend((file.data.len() as u32).to_be_bytes());
        bytes.extend(selector.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(file.name.bytes().take(FW_CFG_MAX_FILE_PATH - 1));
        bytes.resize(end, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_sorted_and_its_selectors_follow() {
        let mut config = FwCfgConfig::pc(1 << 20, 2);
        config.files.push(FwCfgFile::new("etc/a", *b"xyz"));
        config.check().unwrap();
        let items = table(&config);
        let directory = &items[&FW_CFG_FILE_DIR].data;
        assert_eq!(directory.len(), 4 + 5 * FW_CFG_FILE_ENTRY_BYTES);
        assert_eq!(directory[..4], [0, 0, 0, 5]);
        let entry = &directory[4 + 64..][..64];
        assert_eq!(entry[..14], *b"\0\0\0\x03\0\x21\0\0etc/a\0");
        assert_eq!(items[&0x21].data, b"xyz");
    }

    #[test]
    fn what_a_directory_cannot_say_is_refused() {
        let file = |name: &str| FwCfgFile::new(name, []);
        let check = |files: Vec<FwCfgFile>| FwCfgConfig { ram_bytes: 0, cpus: 1, files }.check();
        assert!(check(vec![file(&"x".repeat(55))]).is_ok());
        assert!(check(vec![file(&"x".repeat(56))]).is_err());
        assert!(check(vec![file("")]).is_err());
        assert!(check(vec![file("a"), file("b"), file("a")]).is_err());
        assert!(check((0..33).map(|i| file(&i.to_string())).collect()).is_err());
    }
}
