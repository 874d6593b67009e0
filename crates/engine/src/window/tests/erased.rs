//! Kinds and triggers of one type, so that the general operator is compiled once for all combinations.

use super::subtasks::LATE;
use super::*;
use crate::stream::DataStream;

/// The windows of the stream with all they hold, whenever they fire.
pub fn fired<W: WindowKind<Event>>(input: DataStream<Event>, kind: W, lateness_ms: i64) -> DataStream<Fired> {
    input
        .key_by(|event| event.key)
        .window(kind)
        .allowed_lateness(Duration::from_millis(lateness_ms as u64))
        .side_output_late_data(LATE)
        .apply(|key: &u32, window, events: Vec<Event>| {
            let ids = events.iter().map(|event| event.id).collect();
            Some(Fired { key: *key, window: (window.start_ms, window.end_ms), ids })
        })
}

/// A trigger whose state is bytes.
trait DynTrigger: Send {
    fn boxed_clone(&self) -> Box<dyn DynTrigger>;
    fn on_element(&mut self, value: &Event, context: &mut TriggerContext<'_, Vec<u8>>) -> Result<TriggerResult>;
    fn on_timer(
        &mut self,
        event_time: bool,
        time_ms: i64,
        context: &mut TriggerContext<'_, Vec<u8>>,
    ) -> Result<TriggerResult>;
    fn can_merge(&self) -> bool;
    fn on_merge(&mut self, merged: &[&Vec<u8>], context: &mut TriggerContext<'_, Vec<u8>>) -> Result<()>;
    fn clear(&mut self, context: &mut TriggerContext<'_, Vec<u8>>) -> Result<()>;
}

fn with_state<S: Data, R>(
    context: &mut TriggerContext<'_, Vec<u8>>,
    call: impl FnOnce(&mut TriggerContext<'_, S>) -> R,
) -> R {
    let mut state = context.state.take().map(|bytes| postcard::from_bytes(&bytes).unwrap());
    let result = call(&mut context.nested(&mut state));
    *context.state = state.map(|state| postcard::to_stdvec(&state).unwrap());
    result
}

impl<G: Trigger<Event>> DynTrigger for G {
    fn boxed_clone(&self) -> Box<dyn DynTrigger> {
        Box::new(self.clone())
    }
    fn on_element(&mut self, value: &Event, context: &mut TriggerContext<'_, Vec<u8>>) -> Result<TriggerResult> {
        with_state(context, |context| Trigger::on_element(self, value, value.time_ms, context))
    }
    fn on_timer(
        &mut self,
        event_time: bool,
        time_ms: i64,
        context: &mut TriggerContext<'_, Vec<u8>>,
    ) -> Result<TriggerResult> {
        with_state(context, |context| match event_time {
            true => self.on_event_time(time_ms, context),
            false => self.on_processing_time(time_ms, context),
        })
    }
    fn can_merge(&self) -> bool {
        Trigger::can_merge(self)
    }
    fn on_merge(&mut self, merged: &[&Vec<u8>], context: &mut TriggerContext<'_, Vec<u8>>) -> Result<()> {
        let states: Vec<G::State> = merged.iter().map(|bytes| postcard::from_bytes(bytes).unwrap()).collect();
        let states: Vec<&G::State> = states.iter().collect();
        with_state(context, |context| Trigger::on_merge(self, &states, context))
    }
    fn clear(&mut self, context: &mut TriggerContext<'_, Vec<u8>>) -> Result<()> {
        with_state(context, |context| Trigger::clear(self, context))
    }
}

/// Any trigger.
pub struct SomeTrigger(Box<dyn DynTrigger>);

impl SomeTrigger {
    pub fn new(trigger: impl Trigger<Event>) -> Self {
        SomeTrigger(Box::new(trigger))
    }
}

impl Clone for SomeTrigger {
    fn clone(&self) -> Self {
        SomeTrigger(self.0.boxed_clone())
    }
}

impl Trigger<Event> for SomeTrigger {
    type State = Vec<u8>;
    fn on_element(
        &mut self,
        value: &Event,
        _: i64,
        context: &mut TriggerContext<'_, Vec<u8>>,
    ) -> Result<TriggerResult> {
        self.0.on_element(value, context)
    }
    fn on_event_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, Vec<u8>>) -> Result<TriggerResult> {
        self.0.on_timer(true, time_ms, context)
    }
    fn on_processing_time(&mut self, time_ms: i64, context: &mut TriggerContext<'_, Vec<u8>>) -> Result<TriggerResult> {
        self.0.on_timer(false, time_ms, context)
    }
    fn can_merge(&self) -> bool {
        self.0.can_merge()
    }
    fn on_merge(&mut self, merged: &[&Vec<u8>], context: &mut TriggerContext<'_, Vec<u8>>) -> Result<()> {
        self.0.on_merge(merged, context)
    }
    fn clear(&mut self, context: &mut TriggerContext<'_, Vec<u8>>) -> Result<()> {
        self.0.clear(context)
    }
}

/// A window kind without its types.
trait DynKind: Send {
    fn boxed_clone(&self) -> Box<dyn DynKind>;
    fn is_event_time(&self) -> bool;
    fn merges(&self) -> bool;
    fn assign(&mut self, value: &Event, time_ms: i64, windows: &mut Vec<Window>) -> Result<()>;
    fn trigger(&self) -> SomeTrigger;
    fn evictor(&self) -> Option<Box<dyn AnyEvictor<Event>>>;
    fn fired(&self, input: DataStream<Event>, lateness_ms: i64) -> DataStream<Fired>;
}

impl<W: WindowKind<Event>> DynKind for W {
    fn boxed_clone(&self) -> Box<dyn DynKind> {
        Box::new(self.clone())
    }
    fn is_event_time(&self) -> bool {
        WindowKind::is_event_time(self)
    }
    fn merges(&self) -> bool {
        WindowKind::merges(self)
    }
    fn assign(&mut self, value: &Event, time_ms: i64, windows: &mut Vec<Window>) -> Result<()> {
        WindowKind::assign(self, value, time_ms, windows)
    }
    fn trigger(&self) -> SomeTrigger {
        SomeTrigger::new(WindowKind::trigger(self))
    }
    fn evictor(&self) -> Option<Box<dyn AnyEvictor<Event>>> {
        WindowKind::evictor(self)
    }
    fn fired(&self, input: DataStream<Event>, lateness_ms: i64) -> DataStream<Fired> {
        fired(input, self.clone(), lateness_ms)
    }
}

/// Any window kind; as a kind it always takes the general operator.
pub struct SomeKind(Box<dyn DynKind>);

impl SomeKind {
    pub fn new(kind: impl WindowKind<Event>) -> Self {
        SomeKind(Box::new(kind))
    }

    /// What the kind itself fires, in the operator it brings.
    pub fn fired(&self, input: DataStream<Event>, lateness_ms: i64) -> DataStream<Fired> {
        self.0.fired(input, lateness_ms)
    }
}

impl Clone for SomeKind {
    fn clone(&self) -> Self {
        SomeKind(self.0.boxed_clone())
    }
}

impl WindowKind<Event> for SomeKind {
    type Trigger = SomeTrigger;
    fn name(&self) -> &'static str {
        "Some Window"
    }
    fn is_event_time(&self) -> bool {
        self.0.is_event_time()
    }
    fn merges(&self) -> bool {
        self.0.merges()
    }
    fn assign(&mut self, value: &Event, time_ms: i64, windows: &mut Vec<Window>) -> Result<()> {
        self.0.assign(value, time_ms, windows)
    }
    fn trigger(&self) -> SomeTrigger {
        self.0.trigger()
    }
    fn evictor(&self) -> Option<Box<dyn AnyEvictor<Event>>> {
        self.0.evictor()
    }
}
