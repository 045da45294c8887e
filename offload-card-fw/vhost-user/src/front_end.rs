//! The other side of a session: what a front end asks of the card.

use arrayvec::ArrayVec;
use thiserror::Error;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    feature::ProtocolFeatures,
    header::{HEADER_LEN, Header, MAX_PAYLOAD},
    memory_table::Region,
    platform::MAX_RESOURCES,
    request::Request,
    wire::{ConfigAccess, InflightArea, MAX_CONFIG, MemoryTable, VringAddress, VringState},
};

/// In the payload of `SET_VRING_KICK`, `_CALL` and `_ERR`: no resource comes along.
const NO_RESOURCE: u64 = 1 << 8;

/// The most bytes of a message.
pub const MAX_MESSAGE: usize = HEADER_LEN + MAX_PAYLOAD;

/// Carries messages to a card, one at a time.
pub trait Transport {
    /// What comes along with messages: file descriptors, or handles.
    type Resource: Clone;
    /// Why a message was not carried, or the card has ended the session.
    type Error;

    /// Carries a message, and puts the bytes of the card's answer into `answer`; gives their number, 0 if there is none.
    ///
    /// # Errors
    /// The message was not handled: the session is over.
    fn exchange(
        &mut self,
        message: &[u8],
        resources: &[Self::Resource],
        answer: &mut [u8; MAX_MESSAGE],
    ) -> Result<usize, Self::Error>;
}

/// Why a front end cannot go on with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrontEndError<E> {
    /// The message was not carried, or not handled.
    #[error("{request:?}: {error}")]
    Transport {
        /// What was asked.
        request: Request,
        /// The transport's reason.
        error: E,
    },
    /// What came back is no answer to the request: the card's fault.
    #[error("what came back is no answer to {request:?}")]
    Answer {
        /// What was asked.
        request: Request,
    },
    /// More regions, or more bytes of configuration space, than fit into a message: the caller's fault.
    #[error("{request:?} has more than fits into a message")]
    TooMuch {
        /// What was to be asked.
        request: Request,
    },
}

type Asked<A, T> = Result<A, FrontEndError<<T as Transport>::Error>>;

/// A front end's end of a session. Each call is a message; what the card was told before is for the caller to know.
#[derive(Debug)]
pub struct FrontEnd<T> {
    transport: T,
}

impl<T: Transport> FrontEnd<T> {
    /// A front end whose messages are carried by `transport`.
    pub const fn new(transport: T) -> Self {
        Self { transport }
    }

    /// What carries the messages.
    pub const fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// `SET_OWNER`: begins a session.
    ///
    /// # Errors
    /// As all calls here: [`FrontEndError`].
    pub fn set_owner(&mut self) -> Asked<(), T> {
        self.tell(Request::SetOwner, &[], &[])
    }

    /// `GET_FEATURES`: the virtio features that the device offers, with
    /// [`F_PROTOCOL_FEATURES`](crate::F_PROTOCOL_FEATURES).
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn features(&mut self) -> Asked<u64, T> {
        self.ask(Request::GetFeatures, &[])
    }

    /// `SET_FEATURES`: those that driver and front end use.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_features(&mut self, features: u64) -> Asked<(), T> {
        self.tell(Request::SetFeatures, features.as_bytes(), &[])
    }

    /// `GET_PROTOCOL_FEATURES`: the extensions that the card has, as far as they are known here.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn protocol_features(&mut self) -> Asked<ProtocolFeatures, T> {
        self.ask(Request::GetProtocolFeatures, &[]).map(ProtocolFeatures::from_bits_truncate)
    }

    /// `SET_PROTOCOL_FEATURES`: the extensions that are used.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_protocol_features(&mut self, features: ProtocolFeatures) -> Asked<(), T> {
        self.tell(Request::SetProtocolFeatures, features.bits().as_bytes(), &[])
    }

    /// `GET_QUEUE_NUM`: the number of queues; of a network device that of pairs.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn queues(&mut self) -> Asked<u64, T> {
        self.ask(Request::GetQueueNum, &[])
    }

    /// `SET_MEM_TABLE`: the guest's memory, all of it, with a resource for each region.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_memory(&mut self, regions: &[(Region, T::Resource)]) -> Asked<(), T> {
        let request = Request::SetMemTable;
        let mut payload = ArrayVec::<u8, MAX_PAYLOAD>::new();
        let mut resources = ArrayVec::<T::Resource, MAX_RESOURCES>::new();
        let header = MemoryTable { regions: u32::try_from(regions.len()).unwrap_or(u32::MAX), padding: 0 };
        payload.extend(header.as_bytes().iter().copied());
        for (region, resource) in regions {
            let fits = payload.try_extend_from_slice(region.as_bytes()).is_ok();
            if !fits || resources.try_push(resource.clone()).is_err() {
                return Err(FrontEndError::TooMuch { request });
            }
        }
        self.tell(request, &payload, &resources)
    }

    /// `SET_VRING_NUM`: the number of a ring's descriptors.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_ring_size(&mut self, index: u16, size: u16) -> Asked<(), T> {
        self.set_ring_state(Request::SetVringNum, index, size.into())
    }

    /// `SET_VRING_BASE`: where in a ring to go on.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_ring_base(&mut self, index: u16, base: u32) -> Asked<(), T> {
        self.set_ring_state(Request::SetVringBase, index, base)
    }

    /// `SET_VRING_ADDR`: where a ring's parts are.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_ring_addresses(&mut self, addresses: &VringAddress) -> Asked<(), T> {
        self.tell(Request::SetVringAddr, addresses.as_bytes(), &[])
    }

    /// `SET_VRING_ENABLE`: lets a ring be served, or not.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn enable_ring(&mut self, index: u16, is_enabled: bool) -> Asked<(), T> {
        self.set_ring_state(Request::SetVringEnable, index, is_enabled.into())
    }

    /// `GET_VRING_BASE`: stops a ring; gives where it was.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn stop_ring(&mut self, index: u16) -> Asked<u32, T> {
        let state = VringState { index: index.into(), num: 0 };
        self.ask::<VringState>(Request::GetVringBase, state.as_bytes()).map(|state| state.num)
    }

    /// `SET_VRING_KICK`: what tells the card of new buffers; without any it polls the ring.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_kick(&mut self, index: u16, kick: Option<T::Resource>) -> Asked<(), T> {
        self.set_signal(Request::SetVringKick, index, kick)
    }

    /// `SET_VRING_CALL`: what tells the guest of used buffers.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_call(&mut self, index: u16, call: Option<T::Resource>) -> Asked<(), T> {
        self.set_signal(Request::SetVringCall, index, call)
    }

    /// `SET_VRING_ERR`: what tells the front end that a ring is broken.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_err(&mut self, index: u16, err: Option<T::Resource>) -> Asked<(), T> {
        self.set_signal(Request::SetVringErr, index, err)
    }

    /// `SET_BACKEND_REQ_FD`: what tells the front end of changes to the configuration space.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_back_end_channel(&mut self, channel: T::Resource) -> Asked<(), T> {
        self.tell(Request::SetBackendReqFd, &[], &[channel])
    }

    /// `GET_CONFIG`: bytes of the configuration space from `offset` on, [`MAX_CONFIG`] in all at most.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn read_config(&mut self, offset: u32, into: &mut [u8]) -> Asked<(), T> {
        let request = Request::GetConfig;
        let payload = config_payload(request, offset, into)?;
        let mut answer = [0; MAX_MESSAGE];
        let bytes = self.exchange(request, &payload, &[], &mut answer)?.get(size_of::<ConfigAccess>()..);
        match bytes {
            Some(bytes) if bytes.len() == into.len() => into.copy_from_slice(bytes),
            _ => return Err(FrontEndError::Answer { request }),
        }
        Ok(())
    }

    /// `SET_CONFIG`: the guest writes to the configuration space. A write to what is read-only does nothing.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Asked<(), T> {
        let payload = config_payload(Request::SetConfig, offset, bytes)?;
        self.tell(Request::SetConfig, &payload, &[])
    }

    /// `SET_INFLIGHT_FD`: memory for the state of requests under way, of which each queue has an equal part.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn set_inflight(&mut self, area: &InflightArea, resource: T::Resource) -> Asked<(), T> {
        self.tell(Request::SetInflightFd, area.as_bytes(), &[resource])
    }

    /// `RESET_DEVICE`: stops all rings and resets the device.
    ///
    /// # Errors
    /// [`FrontEndError`].
    pub fn reset_device(&mut self) -> Asked<(), T> {
        self.tell(Request::ResetDevice, &[], &[])
    }

    fn set_ring_state(&mut self, request: Request, index: u16, num: u32) -> Asked<(), T> {
        self.tell(request, VringState { index: index.into(), num }.as_bytes(), &[])
    }

    fn set_signal(&mut self, request: Request, index: u16, signal: Option<T::Resource>) -> Asked<(), T> {
        let without = if signal.is_some() { 0 } else { NO_RESOURCE };
        self.tell(request, (u64::from(index) | without).as_bytes(), signal.as_slice())
    }

    /// A request without an answer of its own.
    fn tell(&mut self, request: Request, payload: &[u8], resources: &[T::Resource]) -> Asked<(), T> {
        let mut answer = [0; MAX_MESSAGE];
        match self.exchange(request, payload, resources, &mut answer)? {
            [] => Ok(()),
            _ => Err(FrontEndError::Answer { request }),
        }
    }

    /// A request whose answer is one value.
    fn ask<A: FromBytes>(&mut self, request: Request, payload: &[u8]) -> Asked<A, T> {
        let mut answer = [0; MAX_MESSAGE];
        let bytes = self.exchange(request, payload, &[], &mut answer)?;
        A::read_from_bytes(bytes).map_err(|_| FrontEndError::Answer { request })
    }

    /// The payload of the answer, empty if there is no answer.
    fn exchange<'a>(
        &mut self,
        request: Request,
        payload: &[u8],
        resources: &[T::Resource],
        answer: &'a mut [u8; MAX_MESSAGE],
    ) -> Asked<&'a [u8], T> {
        let header = Header { request, needs_reply: false, payload_len: payload.len() };
        let mut message = ArrayVec::<u8, MAX_MESSAGE>::from_iter(header.to_bytes());
        message.try_extend_from_slice(payload).or(Err(FrontEndError::TooMuch { request }))?;
        let exchanged = self.transport.exchange(&message, resources, answer);
        let len = exchanged.map_err(|error| FrontEndError::Transport { request, error })?;
        if len == 0 {
            return Ok(&[]);
        }
        // The answer's header says just this: what is asked for, that it is an answer, and how long it is.
        let bytes = answer.get(..len).and_then(|bytes| bytes.split_first_chunk::<HEADER_LEN>());
        match bytes {
            Some((header, payload)) if *header == Header::of_reply(request, payload.len()) => Ok(payload),
            _ => Err(FrontEndError::Answer { request }),
        }
    }
}

/// A place in the configuration space, with bytes that are there or stand for those that are asked for.
fn config_payload<E>(
    request: Request,
    offset: u32,
    bytes: &[u8],
) -> Result<ArrayVec<u8, MAX_PAYLOAD>, FrontEndError<E>> {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if offset.checked_add(size).is_none_or(|end| end as usize > MAX_CONFIG) {
        return Err(FrontEndError::TooMuch { request });
    }
    let mut payload = ArrayVec::from_iter(ConfigAccess { offset, size, flags: 0 }.as_bytes().iter().copied());
    // What is within the configuration space fits.
    payload.extend(bytes.iter().copied());
    Ok(payload)
}
