#include "directed.h"
