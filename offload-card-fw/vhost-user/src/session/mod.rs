//! The state of a connection to a front end.

mod memory;
mod rings;

use arrayvec::ArrayVec;

use crate::{
    device::Device,
    error::{MessageError, SessionError},
    feature::{F_PROTOCOL_FEATURES, ProtocolFeatures},
    header::Header,
    memory_table::{MAX_REGIONS, MemoryTable},
    platform::{MAX_RESOURCES, Platform},
    reply::Reply,
    request::Request,
    vring::{MAX_QUEUES, Vring},
    wire::{self, ConfigAccess, MAX_CONFIG},
};

/// A request with all that came along.
#[derive(Debug)]
pub struct Received<'m, R> {
    /// Its header.
    pub header: Header,
    /// As many bytes as the header says.
    pub payload: &'m [u8],
    /// Resources, in the order in which they came.
    pub resources: ArrayVec<R, MAX_RESOURCES>,
}

/// The answer that a request without one of its own gets if it asks for one: 0 for success.
const ACKNOWLEDGED: u64 = 0;
const REFUSED: u64 = 1;

/// What became of a request.
#[expect(clippy::large_enum_variant, reason = "an answer lives for one call, and there is no heap to put it on")]
enum Outcome<R> {
    Done,
    Refused,
    Answer(Reply<R>),
}

type Result<T, D, P> = core::result::Result<T, SessionError<<D as Device>::RingError, <P as Platform>::Error>>;

/// A connection to a front end. A new one knows nothing: each connection begins with one.
#[derive(Debug, Default)]
pub struct Session {
    features: u64,
    protocol_features: ProtocolFeatures,
    memory: MemoryTable,
    rings: [Vring; MAX_QUEUES],
    status: u8,
}

impl Session {
    /// Handles a request, and says what to answer.
    ///
    /// # Errors
    /// The request is wrong in itself, contradicts what was said before, or the device or the platform cannot do it.
    /// The session is then to be closed.
    pub fn handle<D: Device, P: Platform>(
        &mut self,
        message: Received<'_, P::Resource>,
        device: &mut D,
        platform: &mut P,
    ) -> Result<Option<Reply<P::Resource>>, D, P> {
        let Received { header, payload, resources } = message;
        let request = header.request;
        if !self.is_negotiated(request) {
            return Err(SessionError::NotNegotiated { request });
        }
        let outcome = match request {
            Request::SetMemTable => self.set_memory(payload, resources, device, platform)?,
            Request::AddMemReg => self.add_region::<D, P>(payload, resources, platform)?,
            Request::RemMemReg => self.remove_region(payload, &resources, device, platform)?,
            Request::SetVringKick => {
                self.set_kick(payload, resources, device, platform)?;
                Outcome::Done
            }
            Request::SetVringCall | Request::SetVringErr => {
                let (index, resource) = Self::signal::<D, P>(request, payload, resources, device)?;
                if request == Request::SetVringCall {
                    platform.set_call(index, resource);
                } else {
                    platform.set_err(index, resource);
                }
                Outcome::Done
            }
            Request::SetBackendReqFd => {
                no_payload(request, payload)?;
                platform.set_back_end_channel(one_resource(request, resources)?);
                Outcome::Done
            }
            Request::GetInflightFd | Request::SetInflightFd => {
                self.share_inflight(request, payload, resources, device, platform)?
            }
            _ => {
                no_resources(request, &resources)?;
                self.handle_plain(request, payload, device, platform)?
            }
        };
        let is_acknowledged = header.needs_reply && self.protocol_features.contains(ProtocolFeatures::REPLY_ACK);
        Ok(match outcome {
            Outcome::Answer(reply) => Some(reply),
            Outcome::Done if is_acknowledged => Some(Reply::new(request, &ACKNOWLEDGED)),
            Outcome::Refused if is_acknowledged => Some(Reply::new(request, &REFUSED)),
            Outcome::Done | Outcome::Refused => None,
        })
    }

    /// Ends the session: stops all rings and gives the guest's memory back. Requests that were under way are completed, or
    /// stay marked as under way for the next session.
    pub fn close<D: Device, P: Platform>(&mut self, device: &mut D, platform: &mut P) {
        self.stop_all(device, platform);
        while let Some(region) = self.memory.pop() {
            platform.unmap(&region);
        }
        *self = Self::default();
    }

    /// The extensions that are offered for a device.
    fn offered_extensions<D: Device>(device: &D) -> ProtocolFeatures {
        let mut extensions = device.extensions();
        if device.inflight_len(1).is_none() {
            extensions.remove(ProtocolFeatures::INFLIGHT_SHMFD);
        }
        extensions
    }

    fn is_negotiated(&self, request: Request) -> bool {
        let extension = match request {
            Request::SetBackendReqFd => ProtocolFeatures::BACKEND_REQ,
            Request::GetConfig | Request::SetConfig => ProtocolFeatures::CONFIG,
            Request::GetInflightFd | Request::SetInflightFd => ProtocolFeatures::INFLIGHT_SHMFD,
            Request::ResetDevice => ProtocolFeatures::RESET_DEVICE,
            Request::GetMaxMemSlots | Request::AddMemReg | Request::RemMemReg => ProtocolFeatures::CONFIGURE_MEM_SLOTS,
            Request::SetStatus | Request::GetStatus => ProtocolFeatures::STATUS,
            // The number of queues may be asked for as soon as MQ is seen to be offered.
            _ => ProtocolFeatures::empty(),
        };
        self.protocol_features.contains(extension)
    }

    /// Requests that come without resources.
    fn handle_plain<D: Device, P: Platform>(
        &mut self,
        request: Request,
        payload: &[u8],
        device: &mut D,
        platform: &mut P,
    ) -> Result<Outcome<P::Resource>, D, P> {
        let number = || wire::exactly::<u64>(request, payload);
        let asked = |answer: u64| -> Result<_, D, P> {
            no_payload(request, payload)?;
            Ok(Outcome::Answer(Reply::new(request, &answer)))
        };
        match request {
            Request::GetFeatures => return asked(device.features() | F_PROTOCOL_FEATURES),
            Request::GetProtocolFeatures => return asked(Self::offered_extensions(device).bits()),
            Request::GetQueueNum => return asked(device.told_queues().into()),
            Request::GetMaxMemSlots => return asked(MAX_REGIONS as u64),
            Request::GetStatus => return asked(self.status.into()),
            Request::GetConfig => return self.get_config::<D, P>(payload, device),
            Request::SetConfig => return self.set_config::<D, P>(payload, device),
            Request::GetVringBase => return self.get_base(payload, device, platform),
            Request::SetFeatures => self.set_features::<D, P>(number()?, device)?,
            Request::SetProtocolFeatures => {
                let offered = Self::offered_extensions(device);
                let extra = number()? & !offered.bits();
                if extra != 0 {
                    return Err(SessionError::Features { extra });
                }
                self.protocol_features = ProtocolFeatures::from_bits_truncate(number()?);
            }
            Request::SetStatus => {
                let value = number()?;
                self.status = u8::try_from(value).map_err(|_| wrong(request, "status", value))?;
                if self.status == 0 {
                    self.reset(device, platform);
                }
            }
            Request::ResetDevice => {
                no_payload(request, payload)?;
                self.reset(device, platform);
            }
            Request::ResetOwner => {
                no_payload(request, payload)?;
                self.stop_all(device, platform);
            }
            Request::SetVringNum => self.set_size::<D, P>(payload, device)?,
            Request::SetVringAddr => self.set_addresses::<D, P>(payload, device)?,
            Request::SetVringBase => self.set_base::<D, P>(payload, device)?,
            Request::SetVringEnable => self.enable::<D, P>(payload, device)?,
            _ => no_payload(request, payload)?,
        }
        Ok(Outcome::Done)
    }

    fn set_features<D: Device, P: Platform>(&mut self, features: u64, device: &mut D) -> Result<(), D, P> {
        let extra = features & !(device.features() | F_PROTOCOL_FEATURES);
        if extra != 0 {
            return Err(SessionError::Features { extra });
        }
        if features != self.features {
            self.none_runs::<D, P>(Request::SetFeatures)?;
            self.features = features;
            device.set_features(features & !F_PROTOCOL_FEATURES);
        }
        Ok(())
    }

    /// Stops all rings, and forgets what a driver has said.
    fn reset<D: Device, P: Platform>(&mut self, device: &mut D, platform: &mut P) {
        self.stop_all(device, platform);
        self.features = 0;
        self.status = 0;
        self.rings.iter_mut().for_each(|ring| ring.is_enabled = false);
        device.set_features(0);
        device.reset();
    }

    fn get_config<D: Device, P: Platform>(&self, payload: &[u8], device: &D) -> Result<Outcome<P::Resource>, D, P> {
        let (access, offset, bytes) = config_access(Request::GetConfig, payload)?;
        let mut contents = [0; MAX_CONFIG];
        let contents = contents.get_mut(..bytes.len()).unwrap_or_default();
        device.read_config(offset, contents);
        Ok(Outcome::Answer(Reply::of_parts(Request::GetConfig, zerocopy::IntoBytes::as_bytes(&access), contents)))
    }

    fn set_config<D: Device, P: Platform>(&self, payload: &[u8], device: &mut D) -> Result<Outcome<P::Resource>, D, P> {
        const FROM_THE_GUEST: u32 = 0;
        let (access, offset, bytes) = config_access(Request::SetConfig, payload)?;
        let is_written = access.flags == FROM_THE_GUEST && device.write_config(offset, bytes).is_ok();
        Ok(if is_written { Outcome::Done } else { Outcome::Refused })
    }
}

/// The place in the configuration space, with the bytes that stand for it.
fn config_access(request: Request, payload: &[u8]) -> core::result::Result<(ConfigAccess, usize, &[u8]), MessageError> {
    let (access, bytes) = wire::prefix::<ConfigAccess>(request, payload)?;
    let end = u64::from(access.offset) + u64::from(access.size);
    if end > MAX_CONFIG as u64 {
        return Err(wrong(request, "end", end));
    }
    if usize::try_from(access.size) != Ok(bytes.len()) {
        return Err(MessageError::WrongLength { request, size: payload.len() });
    }
    Ok((access, access.offset as usize, bytes))
}

fn wrong(request: Request, field: &'static str, value: u64) -> MessageError {
    MessageError::WrongValue { request, field, value }
}

fn no_payload(request: Request, payload: &[u8]) -> core::result::Result<(), MessageError> {
    if payload.is_empty() { Ok(()) } else { Err(MessageError::WrongLength { request, size: payload.len() }) }
}

fn no_resources<R>(request: Request, resources: &[R]) -> core::result::Result<(), MessageError> {
    match resources.len() {
        0 => Ok(()),
        found => Err(MessageError::WrongResources { request, found, wanted: 0 }),
    }
}

/// The one resource of a request that has one.
fn one_resource<R>(
    request: Request,
    mut resources: ArrayVec<R, MAX_RESOURCES>,
) -> core::result::Result<R, MessageError> {
    match (resources.len(), resources.pop()) {
        (1, Some(resource)) => Ok(resource),
        (found, _) => Err(MessageError::WrongResources { request, found, wanted: 1 }),
    }
}
