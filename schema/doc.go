// Package schema makes one description out of a Go struct and its tags, and
// uses it for everything that concerns what users type: checking a document
// strictly and with all problems at once, filling in defaults, writing the
// reference documentation, and telling others as JSON Schema: a plugin sends
// its [Schema.JSONSchema], mzd checks settings by what [ParseJSONSchema] makes
// of it, and editors get [Schema.EditorSchema].
//
// The tags of a field:
//
//   - json:"listen" is the key, and every exported field must have one;
//     json:"-" leaves a field out.
//   - doc:"address to serve on" is the sentence the reference shows.
//   - default:"127.0.0.1:8875" is the value when the key is absent. For strings,
//     durations and sizes it is the text itself, for everything else JSON.
//   - enum:"auto|json|text" lists the words a string, or each string of a list
//     or map, may be.
//   - required:"true" makes an absent or empty value a problem.
//   - secret:"true" says that the value is never shown, and that users write a
//     reference to it and not the value itself.
//
// An embedded struct without a tag stands for its fields, as in encoding/json.
// A field that is a struct is always there, with its own defaults; a pointer to
// a struct stays nil when its key is absent. Null is the same as absent.
//
// What tags cannot say goes into a method of the struct, which is called on
// values that are complete and have no other problem:
//
//	func (s Settings) Validate() error {
//		if s.Min > s.Max {
//			return schema.Errorf("min", "is above max")
//		}
//		return nil
//	}
//
// Several problems are returned with [errors.Join].
//
// Package schema imports the standard library only.
package schema
