package plugins

// externalBroadcaster is a sink that serves readers of its own.
type externalBroadcaster struct{ *externalSink }
