//! Requests about memory: the guest's, and that which outlives a session.

use arrayvec::ArrayVec;
use zerocopy::IntoBytes;

use super::{Outcome, Result, Session, no_resources, one_resource, wrong};
use crate::{
    device::Device,
    error::{MessageError, SessionError},
    memory_table::Region,
    platform::{Inflight, MAX_RESOURCES, Platform},
    reply::Reply,
    request::Request,
    wire::{self, InflightArea, MemoryTable as TableHeader, SingleRegion},
};

impl Session {
    /// `SET_MEM_TABLE`: other memory in place of all that there was. Rings that run go on where they were.
    pub(super) fn set_memory<D: Device, P: Platform>(
        &mut self,
        payload: &[u8],
        resources: ArrayVec<P::Resource, MAX_RESOURCES>,
        device: &mut D,
        platform: &mut P,
    ) -> Result<Outcome<P::Resource>, D, P> {
        let request = Request::SetMemTable;
        let (header, bytes) = wire::prefix::<TableHeader>(request, payload)?;
        let (regions, rest) = bytes.as_chunks::<{ size_of::<Region>() }>();
        if !rest.is_empty() || u32::try_from(regions.len()) != Ok(header.regions) {
            return Err(MessageError::WrongLength { request, size: payload.len() }.into());
        }
        if regions.len() != resources.len() {
            let (found, wanted) = (resources.len(), regions.len());
            return Err(MessageError::WrongResources { request, found, wanted }.into());
        }
        let running = self.pause(device);
        while let Some(region) = self.memory.pop() {
            platform.unmap(&region);
        }
        for (bytes, resource) in regions.iter().zip(resources) {
            self.map::<D, P>(zerocopy::transmute!(*bytes), resource, platform)?;
        }
        self.resume::<D, P>(running, device)?;
        Ok(Outcome::Done)
    }

    /// `ADD_MEM_REG`.
    pub(super) fn add_region<D: Device, P: Platform>(
        &mut self,
        payload: &[u8],
        resources: ArrayVec<P::Resource, MAX_RESOURCES>,
        platform: &mut P,
    ) -> Result<Outcome<P::Resource>, D, P> {
        let SingleRegion { region, .. } = wire::exactly(Request::AddMemReg, payload)?;
        self.map::<D, P>(region, one_resource(Request::AddMemReg, resources)?, platform)?;
        Ok(Outcome::Done)
    }

    /// `REM_MEM_REG`, with which some front ends send a needless resource.
    pub(super) fn remove_region<D: Device, P: Platform>(
        &mut self,
        payload: &[u8],
        resources: &[P::Resource],
        device: &mut D,
        platform: &mut P,
    ) -> Result<Outcome<P::Resource>, D, P> {
        let request = Request::RemMemReg;
        let SingleRegion { region, .. } = wire::exactly(request, payload)?;
        no_resources(request, resources.get(1..).unwrap_or_default())?;
        let removed = self.memory.remove(&region);
        let region = removed.ok_or(SessionError::NoSuchRegion { guest_address: region.guest_address })?;
        let running = self.pause(device);
        platform.unmap(&region);
        self.resume::<D, P>(running, device)?;
        Ok(Outcome::Done)
    }

    /// `GET_INFLIGHT_FD` and `SET_INFLIGHT_FD`: an area with the state of requests under way is made, or taken back.
    pub(super) fn share_inflight<D: Device, P: Platform>(
        &mut self,
        request: Request,
        payload: &[u8],
        resources: ArrayVec<P::Resource, MAX_RESOURCES>,
        device: &D,
        platform: &mut P,
    ) -> Result<Outcome<P::Resource>, D, P> {
        let area = wire::inflight(request, payload)?;
        if area.queues == 0 || area.queues > device.queues() {
            return Err(wrong(request, "number of queues", area.queues.into()).into());
        }
        let needed = device.inflight_len(area.queue_size).and_then(|len| len.checked_mul(area.queues.into()));
        let needed = needed.ok_or(wrong(request, "queue size", area.queue_size.into()))?;
        self.none_runs::<D, P>(request)?;
        if request == Request::SetInflightFd {
            let resource = one_resource(request, resources)?;
            if area.mmap_size < needed {
                return Err(SessionError::InflightSize { size: area.mmap_size, needed });
            }
            let used = InflightArea { mmap_size: needed, ..area };
            platform.map_inflight(&used, resource).map_err(SessionError::Memory)?;
            return Ok(Outcome::Done);
        }
        no_resources(request, &resources)?;
        let wanted = InflightArea { mmap_size: needed, mmap_offset: 0, padding: 0, ..area };
        let Inflight { resource, offset } = platform.make_inflight(&wanted).map_err(SessionError::Memory)?;
        let answer = InflightArea { mmap_offset: offset, ..wanted };
        let bytes = answer.as_bytes();
        // As long as the question, whose padding not every front end sends.
        let mut reply = Reply::of_parts(request, bytes.get(..payload.len()).unwrap_or(bytes), &[]);
        reply.resource = Some(resource);
        Ok(Outcome::Answer(reply))
    }

    fn map<D: Device, P: Platform>(
        &mut self,
        region: Region,
        resource: P::Resource,
        platform: &mut P,
    ) -> Result<(), D, P> {
        self.memory.check(&region)?;
        platform.map(&region, resource).map_err(SessionError::Memory)?;
        self.memory.add(region);
        Ok(())
    }
}
