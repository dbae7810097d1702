package gpu

// Limits are the power limit of a GPU in watts, the least that it accepts, and what it
// draws now. What a device does not tell is zero.
type Limits struct {
	Power, Least, Drawn float64
}

// Refused is the error of a setting that the driver does not let this program change.
type Refused struct{ Why error }

func (r Refused) Error() string { return r.Why.Error() }
