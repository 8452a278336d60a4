// Package plugintest holds sources and sinks against the contract that mzd has
// with them ([core.Source], [core.Sink]): the suite that every builtin passes,
// for whoever writes a plugin. Begin with [TestSink] or [TestSource].
package plugintest
