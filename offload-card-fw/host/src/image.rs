//! Disks in files.

use std::{
    fs::File,
    io::{self, Seek},
    os::unix::fs::FileExt,
    path::Path,
};

use dragonfly_storage::{BlockBackend, BlockError, Extent, Geometry, SECTOR_BYTES, Sector};
use log::warn;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

/// A disk whose sectors are the bytes of a file, or of a block device of the host.
#[derive(Debug)]
pub struct ImageDisk {
    file: File,
    name: String,
    geometry: Geometry,
}

impl ImageDisk {
    /// Opens an image, of which only whole sectors are used.
    ///
    /// # Errors
    /// It cannot be opened, another process uses it, or it has not even one sector.
    pub fn open(path: &Path, is_read_only: bool) -> io::Result<Self> {
        let mut file = File::options().read(true).write(!is_read_only).open(path)?;
        let lock =
            if is_read_only { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
        flock(&file, lock).map_err(|_| io::Error::other("another process uses it: stop that, or use a copy"))?;
        // A block device has no length of its own, but an end.
        let capacity_sectors = file.seek(io::SeekFrom::End(0))? / SECTOR_BYTES as u64;
        if capacity_sectors == 0 {
            return Err(io::Error::other("it has no sectors: make it as large as the disk is to be"));
        }
        let geometry = Geometry { capacity_sectors, block_bytes: SECTOR_BYTES as u32, is_read_only };
        Ok(Self { file, name: path.display().to_string(), geometry })
    }

    /// A file's error as a guest hears of it; the log says more.
    fn failed(&self, what: &str, error: &io::Error) -> BlockError {
        warn!("{}: {what} failed: {error}", self.name);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlockError::NoSpace,
            _ => BlockError::Medium,
        }
    }

    fn fallocate(&self, mode: FallocateFlags, extent: Extent) -> io::Result<()> {
        Ok(fallocate(&self.file, mode, position(extent.first)?, position(Sector(extent.count))?)?)
    }

    fn write_zeroes_plainly(&self, extent: Extent) -> io::Result<()> {
        static ZEROES: [u8; 64 * SECTOR_BYTES] = [0; 64 * SECTOR_BYTES];
        let mut at = position(extent.first)?;
        let mut left = position(Sector(extent.count))?;
        while left > 0 {
            let now = left.min(ZEROES.len() as u64);
            self.file.write_all_at(ZEROES.get(..now as usize).unwrap_or_default(), at)?;
            at += now;
            left -= now;
        }
        Ok(())
    }
}

/// The byte where a sector begins.
fn position(sector: Sector) -> io::Result<u64> {
    sector.0.checked_mul(SECTOR_BYTES as u64).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl BlockBackend for ImageDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.geometry.check(Extent::of_bytes(first, into.len())?)?;
        let read = position(first).and_then(|at| self.file.read_exact_at(into, at));
        read.map_err(|error| self.failed("reading", &error))
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        self.geometry.check_change(Extent::of_bytes(first, from.len())?)?;
        let written = position(first).and_then(|at| self.file.write_all_at(from, at));
        written.map_err(|error| self.failed("writing", &error))
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.file.sync_data().map_err(|error| self.failed("flushing", &error))
    }

    /// A discard is a hint: a file system that cannot give space up keeps it.
    fn discard(&self, extent: Extent) -> Result<(), BlockError> {
        self.geometry.check_change(extent)?;
        let _ = self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, extent);
        Ok(())
    }

    fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError> {
        self.geometry.check_change(extent)?;
        let mode = if may_unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        let done = self
            .fallocate(mode | FallocateFlags::KEEP_SIZE, extent)
            // Not every file system can do either.
            .or_else(|_| self.write_zeroes_plainly(extent));
        done.map_err(|error| self.failed("writing zeroes", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(sectors: u64) -> (tempfile::NamedTempFile, ImageDisk) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(sectors * SECTOR_BYTES as u64 + 100).unwrap();
        let disk = ImageDisk::open(file.path(), false).unwrap();
        (file, disk)
    }

    fn extent(first: u64, count: u64) -> Extent {
        Extent { first: Sector(first), count }
    }

    #[test]
    fn what_was_written_is_in_the_file_at_its_place() {
        let (file, disk) = image(8);
        disk.write(Sector(3), &[7; 2 * SECTOR_BYTES]).unwrap();
        disk.flush().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(bytes[..3 * SECTOR_BYTES].iter().all(|byte| *byte == 0));
        assert!(bytes[3 * SECTOR_BYTES..5 * SECTOR_BYTES].iter().all(|byte| *byte == 7));
        let mut back = [1; SECTOR_BYTES];
        disk.read(Sector(4), &mut back).unwrap();
        assert_eq!(back, [7; SECTOR_BYTES]);
    }

    #[test]
    fn zeroes_are_written_and_nothing_beside_them() {
        for may_unmap in [false, true] {
            let (_file, disk) = image(256);
            disk.write(Sector(0), &vec![9; 256 * SECTOR_BYTES]).unwrap();
            disk.write_zeroes(extent(1, 200), may_unmap).unwrap();
            let mut back = vec![1; 256 * SECTOR_BYTES];
            disk.read(Sector(0), &mut back).unwrap();
            let is_zero = |sector: usize| back[sector * SECTOR_BYTES..][..SECTOR_BYTES].iter().all(|byte| *byte == 0);
            assert_eq!((0..256).filter(|sector| is_zero(*sector)).collect::<Vec<_>>(), (1..201).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_part_of_a_sector_at_the_end_does_not_count() {
        let (_file, disk) = image(8);
        assert_eq!(disk.geometry().capacity_sectors, 8);
        assert_eq!(disk.write(Sector(8), &[0; SECTOR_BYTES]), Err(BlockError::OutOfRange));
        assert_eq!(disk.read(Sector(u64::MAX), &mut [0; SECTOR_BYTES]), Err(BlockError::OutOfRange));
        assert_eq!(disk.discard(extent(7, 2)), Err(BlockError::OutOfRange));
    }

    #[test]
    fn an_image_that_is_written_to_is_nobody_elses() {
        let (file, _disk) = image(8);
        let error = ImageDisk::open(file.path(), true).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
    }

    #[test]
    fn a_read_only_image_is_not_written_to() {
        let (file, disk) = image(8);
        drop(disk);
        let disk = ImageDisk::open(file.path(), true).unwrap();
        assert_eq!(disk.write(Sector(0), &[0; SECTOR_BYTES]), Err(BlockError::ReadOnly));
        assert_eq!(disk.write_zeroes(extent(0, 1), true), Err(BlockError::ReadOnly));
    }
}
